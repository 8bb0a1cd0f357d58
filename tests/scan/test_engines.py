"""One suite for every kind of source and both engines: the same rows, whoever scans."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import pytest
from PIL import Image

from safevlm.data import Item, Shard, Source, open_source
from safevlm.scan import COLUMNS, Checkpoint, ScanOptions, ScanSummary, scan, write_report
from safevlm.scorer import RiskScorer
from tests.data.builders import KINDS, id_of, make_source, picture_bytes
from tests.scan.test_contained import check_hostile
from tests.scan.tiny_checkpoint import files_below, rows_of

IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(9)]
IMAGES[4] = ("004.png", b"no picture at all")
IMAGES[7] = ("007.png", IMAGES[6][1])  # equal bytes
TEXTS = [f"caption {number} <b>ä</b>" for number in range(9)]


@dataclass(frozen=True)
class Together:
    """Sources of several kinds as one, so that Ray is kept busy once for all of them."""

    parts: dict[str, Source]
    uri: str = "together:"

    def shards(self) -> list[Shard]:
        return [
            replace(shard, name=f"{kind}/{shard.name}")
            for kind, source in self.parts.items()
            for shard in source.shards()
        ]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        kind, _, name = shard.name.partition("/")
        return self.parts[kind].read(replace(shard, name=name), passed_over)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """The pictures in every format; two lines of the jsonl file and a row of LLaVA's have text only."""
    folder = tmp_path_factory.mktemp("sources")
    uris = {kind: make_source(kind, folder / kind, IMAGES, TEXTS) for kind in KINDS}
    lines, rows = folder / "jsonl" / "rows.jsonl", folder / "llava" / "llava.json"
    lines.write_text('{"text": "first"}\n' + lines.read_text() + '{"text": "last"}\n')
    rows.write_text(json.dumps([*json.loads(rows.read_text()), {"id": "words", "conversations": []}]))
    return Together({kind: open_source(uri) for kind, uri in uris.items()})


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def scanned(
    request: pytest.FixtureRequest,
    together: Together,
    model: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, ScanSummary, ScanOptions]:
    """All of them, scanned by an engine."""
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    out, options = tmp_path_factory.mktemp(request.param), ScanOptions(2, 1, engine=request.param)
    return out, scan(together, model, out, options), options


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_for_every_image(
    kind: str,
    scanned: tuple[Path, ScanSummary, ScanOptions],
    together: Together,
    model: Checkpoint,
    scorer: RiskScorer,
) -> None:
    rows = [row for row in rows_of(scanned[0]) if row["shard"].startswith(f"{kind}/")]
    assert [row["id"] for row in rows] == [id_of(kind, name) for name, _ in IMAGES]
    assert [row["number"] for row in rows] == [0] * 9
    names = [shard.name for shard in together.shards()]
    assert [row["shard"] for row in rows] == sorted((row["shard"] for row in rows), key=names.index)
    for name in names:
        indices = [row["index"] for row in rows if row["shard"] == name]
        assert indices == list(range(len(indices)))
    for row, (_, data), text in zip(rows, IMAGES, TEXTS, strict=True):
        assert list(row) == [column.name for column in COLUMNS]
        assert row["source"] == together.uri
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["text"] == ("" if kind == "folder" else text)
        assert (row["model"], row["policy"]) == (model.sha256, model.policy.sha256)
    broken = rows.pop(4)
    assert (broken["status"], broken["verdict"], broken["score"]) == ("error", "undecided", None)
    assert broken["reason"].startswith(f"{broken['id']}: is not an image")
    good = [data for _, data in IMAGES if data != IMAGES[4][1]]
    for row, found, data in zip(rows, scorer.assess(good), good, strict=True):
        image = Image.open(io.BytesIO(data))
        assert row["score"] == pytest.approx(found.score, abs=1e-5)
        assert dict(row["level_probabilities"]) == pytest.approx(found.level_probabilities, abs=1e-5)
        assert dict(row["category_probabilities"]) == pytest.approx(found.category_probabilities, abs=1e-5)
        same = (row["level"], row["category"], row["verdict"], row["calibrated"])
        assert same == (found.level, found.category, found.verdict.value, found.calibrated)
        assert (row["status"], row["reason"]) == ("ok", "")
        assert (row["width"], row["height"], row["phash"]) == (*image.size, str(imagehash.phash(image)))
    assert {"safe", "unsafe"} <= {row["verdict"] for row in rows}


def test_what_an_engine_leaves_behind(
    scanned: tuple[Path, ScanSummary, ScanOptions], together: Together, model: Checkpoint
) -> None:
    out, summary, options = scanned
    assert summary.verdicts == Counter(row["verdict"] for row in rows_of(out))
    n = len(KINDS)
    assert (summary.n, summary.statuses) == (9 * n, {"ok": 8 * n, "error": n})
    assert summary.shards == {"done": len(together.shards()), "failed": 0, "pending": 0}
    assert summary.passed_over == {"rows that name no image": 3}
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(summary.to_dict()))
    _check_thumbnails(out)
    before = {name: (out / name).stat().st_mtime_ns for name in files_below(out) if name.endswith("parquet")}
    again = scan(together, model, out, options)
    assert (again.n, again.verdicts, again.seconds) == (summary.n, summary.verdicts, summary.seconds)
    assert again.passed_over == summary.passed_over
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert write_report(out, again).read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_scanned_by_itself(
    kind: str, together: Together, model: Checkpoint, tmp_path: Path
) -> None:
    source = together.parts[kind]
    summary = scan(source, model, tmp_path, ScanOptions(batch_size=2, workers=1))
    assert (summary.n, summary.source, summary.shards["done"]) == (9, source.uri, len(source.shards()))
    assert scan(source, model, tmp_path).seconds == summary.seconds


def _check_thumbnails(out: Path) -> None:
    """Every unsafe picture has one, but for repeats of bytes that were scored before."""
    flagged = [row for row in rows_of(out) if row["verdict"] == "unsafe"]
    found = {(row["shard"], row["index"]): row for row in rows_of(out, "thumbnails")}
    hashes = {row["sha256"] for row in flagged if (row["shard"], row["index"]) in found}
    assert hashes == {row["sha256"] for row in flagged}
    assert set(found) <= {(row["shard"], row["index"]) for row in flagged}
    for row in found.values():
        image = Image.open(io.BytesIO(row["thumbnail"]))
        assert (image.format, max(image.size) <= 192) == ("WEBP", True)
        assert len(row["heatmap"]) == row["heatmap_height"] * row["heatmap_width"] == 16
        assert max(row["heatmap"]) == 255


def test_text_is_scored_with_the_image(model: Checkpoint, scorer: RiskScorer, tmp_path: Path) -> None:
    source = open_source(make_source("llava", tmp_path / "source", IMAGES, TEXTS))
    scan(source, model, tmp_path / "out", ScanOptions(2, 1, with_text=True))
    rows = [row for row in rows_of(tmp_path / "out") if row["status"] == "ok"]
    pairs = [(data, text) for (_, data), text in zip(IMAGES, TEXTS, strict=True) if data != IMAGES[4][1]]
    images, texts = [data for data, _ in pairs], [text for _, text in pairs]
    with_text, without = scorer.assess(images, texts), scorer.assess(images)
    assert [row["score"] for row in rows] == pytest.approx([a.score for a in with_text], abs=1e-5)
    assert [a.score for a in with_text] != pytest.approx([a.score for a in without], abs=1e-5)
    assert rows[5]["sha256"] == rows[6]["sha256"]
    assert rows[5]["score"] != rows[6]["score"]  # the same picture, another caption


def test_limit_and_sample_choose_the_same_images(model: Checkpoint, tmp_path: Path) -> None:
    images = [(f"{number:03d}.png", picture_bytes(number)) for number in range(12)]
    source = open_source(make_source("wds", tmp_path / "source", images))  # 6 images a tar, uncounted
    first = scan(source, model, tmp_path / "a", ScanOptions(4, 1, limit=8))
    assert [row["id"] for row in rows_of(tmp_path / "a")] == [f"{number:03d}" for number in range(8)]
    assert (first.n, first.total, first.interrupted) == (8, 8, False)
    half = scan(source, model, tmp_path / "b", ScanOptions(4, 1, limit=8, sample_fraction=0.5))
    assert [row["id"] for row in rows_of(tmp_path / "b")] == [
        f"{number:03d}" for number in range(8) if is_drawn(f"{number // 6}.tar", f"{number:03d}")
    ]
    assert 0 < half.n < half.n + half.skipped == half.total == 8


def is_drawn(shard: str, id: str) -> bool:
    """Whether a sample of one half takes it, by the rule that the documentation gives."""
    digest = hashlib.blake2b(f"safevlm-scan\0{shard}\0{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < 2**63


def test_a_sample_is_drawn_with_all_its_images(model: Checkpoint, tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "0.tar")) as tar:
        for n in range(20):
            tar.write({"__key__": f"{n}", "0.png": picture_bytes(2 * n), "1.png": picture_bytes(2 * n + 1)})
    scan(open_source(f"wds:{tmp_path}/0.tar"), model, tmp_path / "out", ScanOptions(sample_fraction=0.5))
    drawn = [str(n) for n in range(20) if is_drawn("0.tar", str(n))]
    assert 0 < len(drawn) < 20
    assert [(row["id"], row["number"]) for row in rows_of(tmp_path / "out")] == [
        (id, number) for id in drawn for number in (0, 1)
    ]


@pytest.mark.ray
def test_any_exception_of_a_reader_fails_its_shard_alone_on_ray(
    ray_here: None, model: Checkpoint, tmp_path: Path
) -> None:
    check_hostile(model, tmp_path, "ray")
