"""What a scan writes, counts, bounds and refuses, on this machine."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safevlm.data import FolderSource, Item, Shard, prepared_pixels
from safevlm.errors import DataError, MissingExtraError
from safevlm.policy import Policy
from safevlm.scan import Checkpoint, ScanCounts, ScanOptions, scan, worker
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.model import model_sha256
from safevlm.scan.rows import result_row
from safevlm.scan.worker import prepare, score
from safevlm.scorer import RiskScorer
from safevlm.types import RiskAssessment
from tests.data.builders import encoded, picture_bytes
from tests.scan.tiny_checkpoint import files_below, rows_of


def source_of(pictures: Path, files_per_shard: int = 6) -> FolderSource:
    return FolderSource(pictures, files_per_shard=files_per_shard)


def test_schema(pictures: Path, model: Checkpoint, tmp_path: Path) -> None:
    scan(source_of(pictures), model, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out/rows/part-00000.parquet")
    texts, numbers = pa.string(), pa.int32()
    scores = pa.map_(pa.string(), pa.float32())
    assert {field.name: field.type for field in schema} == {
        "source": texts, "id": texts, "shard": texts, "index": numbers, "number": numbers, "width": numbers, "height": numbers,
        "sha256": texts, "phash": texts, "score": pa.float32(), "level": texts, "category": texts,
        "verdict": texts, "status": texts, "reason": texts, "level_probabilities": scores,
        "category_probabilities": scores, "calibrated": pa.bool_(), "text": texts, "model": texts, "policy": texts,
            "read_text": texts, "decided_by": texts,
    }  # fmt: skip
    parts = {f"{kind}/part-0000{number}.parquet" for kind in ("rows", "thumbnails") for number in range(4)}
    assert files_below(tmp_path / "out") == parts | {"summary.json", "ledger.sqlite"}


def test_progress_counts_up_to_the_summary(pictures: Path, model: Checkpoint, tmp_path: Path) -> None:
    seen: list[ScanCounts] = []
    (pictures / "zz.png").write_bytes(b"broken")
    summary = scan(
        source_of(pictures), model, tmp_path / "out", ScanOptions(batch_size=4), on_progress=seen.append
    )
    assert [counts.done for counts in seen] == sorted(counts.done for counts in seen)
    last = seen[-1]
    assert last.ok + last.undecided + last.error == last.done == last.total == summary.n == 21
    assert (last.error, last.unsafe) == (1, summary.verdicts["unsafe"])
    assert summary.images_per_second == pytest.approx(summary.n / summary.seconds)
    assert {"python", "pillow", "pyarrow"} <= set(summary.versions)
    written = json.loads((tmp_path / "out/summary.json").read_text())
    rows = rows_of(tmp_path / "out")
    for key, column in (("statuses", "status"), ("levels", "level"), ("categories", "category")):
        assert written[key] == Counter(row[column] for row in rows if row[column] is not None)


class Asked(RiskScorer):
    """The real scorer, which notes how many images it gets; blue pictures break it, red ones have no score."""

    def __init__(self, scorer: RiskScorer) -> None:
        vars(self).update(vars(scorer))
        self.sizes: list[int] = []
        self.answers, self.interrupt_at = 0, sys.maxsize

    def preprocess(self, images: Sequence[Image.Image]) -> Any:
        return [image.getpixel((0, 0)) for image in images], super().preprocess(images)

    def assess_inputs(self, inputs: Any, prompts: Any = None, **options: Any) -> list[RiskAssessment]:
        colours, inputs = inputs
        self.sizes.append(len(colours))
        if len(self.sizes) > self.interrupt_at:
            raise KeyboardInterrupt
        if (0, 0, 255) in colours:
            raise RuntimeError("out of memory")
        found = super().assess_inputs(inputs, prompts, **options)
        nan = [
            replace(a, score=math.nan) if c == (255, 0, 0) else a for a, c in zip(found, colours, strict=True)
        ]
        return nan + nan[:1] * self.answers


@pytest.fixture
def asked(scorer: RiskScorer) -> Asked:
    return Asked(scorer)


def coloured(folder: Path, name: str, colour: tuple[int, int, int]) -> None:
    (folder / name).write_bytes(encoded(Image.new("RGB", (6, 4), colour)))


def test_a_failing_batch_is_tried_one_by_one(pictures: Path, asked: Asked, tmp_path: Path) -> None:
    coloured(pictures, "blue.png", (0, 0, 255))
    coloured(pictures, "red.png", (255, 0, 0))
    scan(source_of(pictures, 100), asked, tmp_path / "out")
    assert asked.sizes == [22, *[1] * 22]
    by_id = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert Counter(row["status"] for row in by_id.values()) == {"ok": 20, "undecided": 2}
    for name, reason in (("blue.png", "RuntimeError: out of memory"), ("red.png", "gave no score")):
        row = by_id[name]
        assert (row["verdict"], row["score"], row["level"], row["category"]) == (
            "undecided",
            None,
            None,
            None,
        )
        assert reason in row["reason"]
    shown = {row["index"] for row in rows_of(tmp_path / "out", "thumbnails")}
    assert {by_id["blue.png"]["index"], by_id["red.png"]["index"]} <= shown


@pytest.mark.parametrize("score_given", [math.nan, math.inf, 1.5, -0.1, None])
def test_a_score_that_is_none_is_undecided_even_when_the_scorer_says_safe(
    score_given: float | None, scorer: RiskScorer
) -> None:
    class Liar(Asked):
        def assess_inputs(self, *args: Any, **options: Any) -> list[RiskAssessment]:
            found = super().assess_inputs(*args, **options)
            return [replace(a, score=score_given) for a in found]

    batch = Batch(0, 0, (Entry(0, Item("a", data=picture_bytes())),))
    liar = Liar(scorer)
    (entry,) = score(prepare(batch, liar.preprocess), liar, with_text=False).entries
    row = result_row(entry)
    assert (row["status"], row["verdict"], row["score"]) == ("undecided", "undecided", None)
    assert row["reason"]


def test_a_wrong_number_of_answers_never_shifts_rows(pictures: Path, asked: Asked, tmp_path: Path) -> None:
    asked.answers = 1
    scan(source_of(pictures), asked, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row["status"] for row in rows} == {"undecided"}
    assert "2 assessments for 1 image" in rows[0]["reason"]


def test_a_mistake_in_code_is_not_swallowed(pictures: Path, scorer: RiskScorer, tmp_path: Path) -> None:
    class Mistaken(Asked):
        def assess_inputs(self, *args: Any, **options: Any) -> list[RiskAssessment]:
            raise AttributeError("no such method")

    with pytest.raises(AttributeError):
        scan(source_of(pictures), Mistaken(scorer), tmp_path / "out")


def test_equal_bytes_are_scored_once(pictures: Path, asked: Asked, tmp_path: Path) -> None:
    for number in (3, 4, 11):
        (pictures / f"{number:02d}.png").write_bytes((pictures / "00.png").read_bytes())
    (pictures / "zz.png").write_bytes(b"broken")
    (pictures / "zzz.png").write_bytes(b"broken")
    summary = scan(source_of(pictures), asked, tmp_path / "out", ScanOptions(batch_size=2))
    assert sum(asked.sizes) == 17
    assert summary.duplicates == 4
    rows = rows_of(tmp_path / "out")
    same = [{k: v for k, v in rows[n].items() if k not in ("id", "shard", "index")} for n in (0, 3, 4, 11)]
    assert same[1:] == same[:1] * 3
    assert [row["reason"].partition(":")[0] for row in rows[-2:]] == ["zz.png", "zzz.png"]


def test_interrupted_between_shards(pictures: Path, asked: Asked, model: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked.interrupt_at = 5  # in the third shard of four, each of two batches
    with pytest.raises(KeyboardInterrupt):
        scan(source_of(pictures), asked, out, ScanOptions(batch_size=3))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["interrupted"]
    assert summary["shards"]["done"] * 6 == summary["n"] == len(rows_of(out)) <= 12
    assert not [name for name in files_below(out) if ".tmp" in name]
    assert not [t for t in threading.enumerate() if t.name.startswith("safevlm-")]
    scan(source_of(pictures), model, out, ScanOptions(batch_size=3))
    scan(source_of(pictures), model, tmp_path / "whole", ScanOptions(batch_size=3))
    assert rows_of(out) == rows_of(tmp_path / "whole")


def test_many_errors_stop_the_scan_and_keep_the_rows(model: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03d}.png").write_bytes(f"broken {number}".encode())
    summary = scan(FolderSource(folder), model, tmp_path / "out", ScanOptions(max_error_rate=0.2))
    assert 100 <= summary.n == len(rows_of(tmp_path / "out")) < 200
    assert "a rate above 0.2" in summary.stopped
    assert not summary.complete
    again = scan(FolderSource(folder), model, tmp_path / "out", ScanOptions(max_error_rate=1.0))
    assert (again.n, again.stopped) == (200, "")


class Counting:
    """A source that knows how many images were read and not yet recorded."""

    uri = "counting:"

    def __init__(self) -> None:
        self.read_so_far, self.recorded, self.most = 0, 0, 0

    def shards(self) -> list[Shard]:
        return [Shard(f"{number}", "", 10) for number in range(12)]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        for number in range(10):
            self.read_so_far += 1
            self.most = max(self.most, self.read_so_far - self.recorded)
            yield Item(f"{shard.name}-{number}", data=picture_bytes(10 * int(shard.name) + number))

    def note(self, counts: ScanCounts) -> None:
        self.recorded = counts.done


def test_what_waits_is_bounded(model: Checkpoint, tmp_path: Path) -> None:
    source = Counting()
    scan(source, model, tmp_path / "out", ScanOptions(batch_size=2, workers=1), on_progress=source.note)
    ahead = 1 + 2
    assert source.most <= 2 * (ahead + ahead + 2 * ahead + 2)  # read, prepared, drawn, and in hand
    assert len(rows_of(tmp_path / "out")) == 120


def test_large_pictures_go_in_small_groups(scorer: RiskScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_HELD_PIXELS", 2 * prepared_pixels(24, 24))
    entries = [Entry(n, Item(str(n), data=picture_bytes(n, (24, 24)))) for n in range(5)]
    prepared = prepare(Batch(0, 0, tuple(entries)), scorer.preprocess)
    assert list(prepared.inputs) == [(0, 1), (2, 3), (4,)]


def test_bad_options() -> None:
    for options in ({"batch_size": 0}, {"workers": 0}, {"limit": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            ScanOptions(**options)
    for options in (
        {"batch_size": 20_000},
        {"sample_fraction": 1.0},
        {"sample_fraction": 0.0},
        {"max_error_rate": 1.5},
        {"engine": "cloud"},
    ):
        with pytest.raises(ValueError, match="scan: "):
            ScanOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="engine"):
        ScanOptions(ray_address="auto")


def test_a_scorer_in_memory_is_refused_on_ray(pictures: Path, scorer: RiskScorer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Checkpoint"):
        scan(source_of(pictures), scorer, tmp_path / "out", ScanOptions(engine="ray"))


def test_missing_pyarrow_names_the_command(
    pictures: Path, model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safevlm\[scan\]'"):
        scan(source_of(pictures), model, tmp_path / "out")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Within the context no file grows beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_is_finished(pictures: Path, model: Checkpoint, tmp_path: Path) -> None:
    out, options = tmp_path / "out", ScanOptions(batch_size=4)
    scan(source_of(pictures), model, tmp_path / "whole", options)
    scan(source_of(pictures), replace(model), out, replace(options, limit=6))
    largest = max(path.stat().st_size for path in (tmp_path / "whole").rglob("*.parquet"))
    with files_up_to(largest - 1), pytest.raises(DataError, match="cannot be written|disk|full"):
        scan(source_of(pictures), model, out, options, fresh=True)
    scan(source_of(pictures), model, out, options)
    assert rows_of(out) == rows_of(tmp_path / "whole")


def test_places_that_cannot_be_written(pictures: Path, model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        scan(source_of(pictures), model, tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        scan(source_of(pictures), model, "/proc/out" if os.path.isdir("/proc") else tmp_path / "file" / "x")


def test_policy_is_part_of_the_model(model: Checkpoint, scorer: RiskScorer) -> None:
    assert model_sha256(scorer) == model_sha256(model) == model.sha256
    assert replace(model, chosen_policy=Policy(scorer.config.taxonomy)).sha256 == model.sha256


def test_thumbnails_show_where_the_head_looked(
    pictures: Path, model: Checkpoint, scorer: RiskScorer, tmp_path: Path
) -> None:
    scan(source_of(pictures), model, tmp_path / "out", ScanOptions(batch_size=4))
    names = {(row["shard"], row["index"]): row["id"] for row in rows_of(tmp_path / "out")}
    found = rows_of(tmp_path / "out", "thumbnails")
    assert found
    for row in found:
        expected = scorer.assess([pictures / names[row["shard"], row["index"]]], heatmap=True)[0].heatmap
        assert (row["heatmap_height"], row["heatmap_width"]) == expected.shape
        assert list(row["heatmap"]) == pytest.approx(list(expected.flatten() * 255), abs=1)
