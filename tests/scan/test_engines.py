"""One suite for every kind of source and both engines: the same rows, whoever scans."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import imagehash
import pytest
from PIL import Image

from safevlm.data import open_source
from safevlm.scan import COLUMNS, Checkpoint, ScanOptions, scan, write_report
from safevlm.scorer import RiskScorer
from tests.data.builders import KINDS, id_of, make_source, picture_bytes
from tests.scan.tiny_checkpoint import files_below, rows_of

IMAGES = [(f"{number:03d}.png", picture_bytes(number)) for number in range(9)]
IMAGES[4] = ("004.png", b"no picture at all")
IMAGES[7] = ("007.png", IMAGES[6][1])  # equal bytes
TEXTS = [f"caption {number} <b>ä</b>" for number in range(9)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_for_every_image(
    kind: str, engine: str, model: Checkpoint, scorer: RiskScorer, tmp_path: Path
) -> None:
    source = open_source(make_source(kind, tmp_path / "source", IMAGES, TEXTS))
    out = tmp_path / "out"
    options = ScanOptions(batch_size=2, workers=1, engine=engine)
    summary = scan(source, model, out, options)
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [id_of(kind, name) for name, _ in IMAGES]
    assert [row["number"] for row in rows] == [0] * 9
    names = [shard.name for shard in source.shards()]
    assert [row["shard"] for row in rows] == sorted((row["shard"] for row in rows), key=names.index)
    for name in names:
        indices = [row["index"] for row in rows if row["shard"] == name]
        assert indices == list(range(len(indices)))
    for row, (_, data), text in zip(rows, IMAGES, TEXTS, strict=True):
        assert list(row) == [column.name for column in COLUMNS]
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
    counted = Counter(row["verdict"] for row in [*rows, broken])
    assert summary.verdicts == counted
    assert {"safe", "unsafe"} <= set(counted)
    assert (summary.n, summary.statuses, summary.shards["pending"]) == (9, {"ok": 8, "error": 1}, 0)
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(summary.to_dict()))
    _check_thumbnails(out)
    before = {name: (out / name).stat().st_mtime_ns for name in files_below(out) if name.endswith("parquet")}
    again = scan(source, model, out, options)
    assert (again.n, again.verdicts, again.seconds) == (summary.n, summary.verdicts, summary.seconds)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert write_report(out, again).read_text().startswith("<!doctype html>")


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
    half = scan(source, model, tmp_path / "b", ScanOptions(4, 1, limit=8, sample=0.5))
    kept = [(row["shard"], row["index"]) for row in rows_of(tmp_path / "b")]
    assert kept == [("0.tar", i) for i in SAMPLE_OF_6["0.tar"]] + [
        ("1.tar", i) for i in SAMPLE_OF_6["1.tar"] if i < 2
    ]
    assert half.n + half.skipped == half.total == 8


SAMPLE_OF_6 = {
    name: [
        i
        for i in range(6)
        if int.from_bytes(
            hashlib.blake2b(f"safevlm-scan\0{name}\0{i}".encode(), digest_size=8).digest(), "big"
        )
        < 2**63
    ]
    for name in ("0.tar", "1.tar")
}
"""What a sample of one half takes, by the rule that the documentation gives."""
