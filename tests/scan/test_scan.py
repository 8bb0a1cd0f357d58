"""The first scanner: one row for every picture, whatever happens."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safevlm.data import FolderSource
from safevlm.errors import DataError, MissingExtraError
from safevlm.policy import Policy
from safevlm.scan import ScanCounts, ScanWorker, local, scan
from safevlm.taxonomy import Taxonomy
from safevlm.types import Risk, RiskAssessment, Sample

POLICY = Policy(Taxonomy.preset("safevlm"))


@dataclass
class Brightness:
    """Scores by mean brightness. A red picture has a NaN score, a blue one breaks the scorer."""

    name: str = "brightness"
    policy: Policy = POLICY
    sizes: list[int] = field(default_factory=list)
    interrupt_at: int | None = None

    def assess(self, images: Sequence[Image.Image]) -> list[RiskAssessment]:
        self.sizes.append(len(images))
        if self.interrupt_at is not None and len(self.sizes) > self.interrupt_at:
            raise KeyboardInterrupt
        colours = [np.asarray(image).reshape(-1, 3).mean(0) for image in images]
        if any(colour[2] > colour[0] + 100 for colour in colours):
            raise RuntimeError("out of memory")
        return [self._assess(colour) for colour in colours]

    def _assess(self, colour: np.ndarray) -> RiskAssessment:
        taxonomy = self.policy.taxonomy
        score = float(colour.mean()) / 255 if colour[0] < colour[1] + 100 else math.nan
        rest = {name: score / len(taxonomy.risky_levels) for name in taxonomy.risky_levels}
        share = {name: score / len(taxonomy.risky_categories) for name in taxonomy.risky_categories}
        levels = {taxonomy.safe_level: 1 - score, **rest}
        return self.policy.assess(Risk(score, levels, {taxonomy.clean: 1 - score, **share}, True))


def save(path: Path, colour: int | tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path, "PNG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 grey pictures, one NaN, one that breaks the scorer, three that cannot be read."""
    root = tmp_path / "pictures"
    for number in range(20):
        save(root / f"grey/{number:02d}.png", number * 13)
    save(root / "nan.png", (255, 0, 0))
    save(root / "breaks.png", (0, 0, 255))
    (root / "empty.png").touch()
    (root / "text.jpg").write_text("hello")
    os.mkfifo(root / "pipe.gif")
    return root


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted((out / "rows").iterdir()) for row in pq.read_table(part).to_pylist()]


def everything_below(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_one_row_for_every_picture(folder: Path, tmp_path: Path) -> None:
    scan(FolderSource(folder), Brightness(), tmp_path / "out", batch_size=4)
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == [sample.id for sample in FolderSource(folder)]
    by_id = {row["id"]: row for row in rows}
    grey = by_id["grey/19.png"]
    assert grey["score"] == pytest.approx(19 * 13 / 255, abs=1e-6)
    assert (grey["width"], grey["height"], grey["status"], grey["verdict"]) == (6, 4, "ok", "unsafe")
    assert grey["sha256"] == hashlib.sha256((folder / "grey/19.png").read_bytes()).hexdigest()
    assert sum(dict(grey["level_probabilities"]).values()) == pytest.approx(1, abs=1e-5)
    assert grey["calibrated"] is True
    assert by_id["grey/00.png"]["verdict"] == "safe"
    for name, status, reason in (
        ("nan.png", "undecided", "not a number"),
        ("breaks.png", "undecided", "RuntimeError: out of memory"),
        ("empty.png", "error", "is empty"),
        ("text.jpg", "error", "not an image"),
        ("pipe.gif", "error", "not a regular file"),
    ):
        row = by_id[name]
        assert (row["status"], row["verdict"], row["score"]) == (status, "undecided", None)
        assert row["level"] is row["category"] is None
        assert reason in row["reason"]
    assert by_id["text.jpg"]["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert by_id["pipe.gif"]["sha256"] is by_id["pipe.gif"]["width"] is None


def test_schema(folder: Path, tmp_path: Path) -> None:
    scan(FolderSource(folder), Brightness(), tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out/rows/part-00000.parquet")
    scores = pa.map_(pa.string(), pa.float32())
    kinds = [
        pa.string(),
        pa.int32(),
        pa.int32(),
        pa.string(),
        pa.float32(),
        *[pa.string()] * 5,
        scores,
        scores,
    ]
    assert [f.type for f in schema] == [*kinds, pa.bool_()]
    assert schema.names == [
        "id", "width", "height", "sha256", "score", "level", "category", "verdict", "status", "reason",
        "level_probabilities", "category_probabilities", "calibrated",
    ]  # fmt: skip


def test_summary_is_that_of_the_rows(folder: Path, tmp_path: Path) -> None:
    summary = scan(FolderSource(folder), Brightness(), tmp_path / "out", batch_size=7)
    rows = rows_of(tmp_path / "out")
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert written == json.loads(json.dumps(summary.to_dict()))
    for key, column in (
        ("statuses", "status"),
        ("verdicts", "verdict"),
        ("levels", "level"),
        ("categories", "category"),
    ):
        assert written[key] == Counter(row[column] for row in rows if row[column] is not None)
    assert written["n"] == written["total"] == len(rows) == 25
    assert written["images_per_second"] == pytest.approx(25 / written["seconds"])
    assert (written["model"], written["policy_sha256"]) == ("brightness", POLICY.sha256)
    assert {"python", "pillow", "pyarrow"} <= set(written["versions"])
    assert written["interrupted"] is False


def test_parts_hold_equal_numbers_of_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ROWS_PER_PART", 10)
    scan(FolderSource(folder), Brightness(), tmp_path / "out", batch_size=4)
    parts = sorted((tmp_path / "out/rows").iterdir())
    assert [pq.read_metadata(part).num_rows for part in parts] == [10, 10, 5]
    names = {"summary.json", *(f"rows/part-{number:05d}.parquet" for number in range(3))}
    assert everything_below(tmp_path / "out") == names


def test_limit_and_progress(folder: Path, tmp_path: Path) -> None:
    seen: list[ScanCounts] = []
    summary = scan(
        FolderSource(folder), Brightness(), tmp_path / "out", batch_size=2, limit=5, on_progress=seen.append
    )
    assert (summary.n, summary.total, summary.interrupted) == (5, 5, False)
    assert [counts.done for counts in seen] == [2, 4, 5]
    last = seen[-1]
    assert last.ok + last.undecided + last.error == last.done == last.total


def test_a_failing_batch_is_tried_one_by_one(folder: Path, tmp_path: Path) -> None:
    scorer = Brightness()
    scan(FolderSource(folder), scorer, tmp_path / "out", batch_size=100)
    assert scorer.sizes == [22, *[1] * 22]
    statuses = Counter(row["status"] for row in rows_of(tmp_path / "out"))
    assert statuses == {"ok": 20, "undecided": 2, "error": 3}


class Careless:
    """A scorer that returns what it was made with, however many images there are."""

    def __init__(self, *answers: RiskAssessment) -> None:
        self.answers = answers

    def assess(self, images: Sequence[Image.Image]) -> list[RiskAssessment]:
        return list(self.answers)


@pytest.mark.parametrize("score", [math.nan, math.inf, 1.5, -0.1, None])
def test_a_score_that_is_none_is_undecided_even_when_the_scorer_says_safe(score: float | None) -> None:
    good = POLICY.assess(Brightness()._assess(np.zeros(3)))
    liar = RiskAssessment(**{**good.__dict__, "score": score})
    (row,) = ScanWorker(Careless(liar))([Sample("a", Image.new("RGB", (2, 2)))])
    assert (row["status"], row["verdict"], row["score"]) == ("undecided", "undecided", None)
    assert row["reason"]


def test_a_wrong_number_of_answers_never_shifts_rows() -> None:
    good = Brightness()._assess(np.zeros(3))
    samples = [Sample("a", Image.new("RGB", (2, 2))), Sample("b", Image.new("RGB", (2, 2)))]
    rows = ScanWorker(Careless(good, good, good))(samples)
    assert [row["status"] for row in rows] == ["undecided", "undecided"]
    assert "3 assessments for 1 images" in rows[0]["reason"]


def test_a_mistake_in_code_is_not_swallowed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        scan(FolderSource(folder), object(), tmp_path / "out")  # type: ignore[arg-type]


def test_worker_pickles() -> None:
    worker = pickle.loads(pickle.dumps(ScanWorker(Brightness())))  # noqa: S301
    samples = [Sample("a", Image.new("RGB", (2, 2), (9, 9, 9))), Sample("b", None, "gone")]
    assert [row["status"] for row in worker(samples)] == ["ok", "error"]


def test_interrupt_keeps_the_rows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        scan(FolderSource(folder / "grey"), Brightness(interrupt_at=3), out, batch_size=4)
    rows, summary = rows_of(out), json.loads((out / "summary.json").read_text())
    assert len(rows) == summary["n"] == 12
    assert summary["total"] == 20
    assert summary["interrupted"] is True
    assert everything_below(out) == {"summary.json", "rows/part-00000.parquet"}
    assert not [t for t in threading.enumerate() if t.name.startswith("safevlm-decode")]


def test_an_earlier_scan_is_refused_or_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scan(FolderSource(folder), Brightness(), out)
    before = everything_below(out)
    with pytest.raises(DataError, match=r"already holds a scan; choose another folder, or --fresh"):
        scan(FolderSource(folder), Brightness(), out)
    (out / "notes.txt").write_text("mine")
    (out / "rows/.part-00007.parquet.tmp").write_text("left by a killed scan")
    scan(FolderSource(folder), Brightness(), out, limit=3, fresh=True)
    assert everything_below(out) == before | {"notes.txt"}
    assert len(rows_of(out)) == 3


@pytest.mark.parametrize("name", ["rows/mine.txt", "rows/part-00009.parquet", "summary.json"])
def test_fresh_removes_only_what_a_scan_wrote(name: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scan(FolderSource(folder), Brightness(), out, limit=3)
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"a": [1]}), out / name)
    else:
        (out / name).write_text("{}")
    before = everything_below(out)
    with pytest.raises(DataError, match="not written by a scan"):
        scan(FolderSource(folder), Brightness(), out, fresh=True)
    assert everything_below(out) == before


def test_bad_arguments(folder: Path, tmp_path: Path) -> None:
    source = FolderSource(folder)
    for options in ({"batch_size": 0}, {"workers": 0}, {"limit": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            scan(source, Brightness(), tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        scan([], Brightness(), tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        scan(source, Brightness(), tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_missing_pyarrow_names_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safevlm\[scan\]'"):
        scan(FolderSource(folder), Brightness(), tmp_path / "out")


class Counting:
    """A source that knows how many samples were read and not yet scored."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.read, self.scored, self.most = size, 0, 0, 0
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        with self.lock:
            self.read += 1
            self.most = max(self.most, self.read - self.scored)
        return Sample(f"{index:03d}", Image.new("RGB", self.size))

    def note(self, counts: ScanCounts) -> None:
        self.scored = counts.done


def test_samples_that_wait_are_bounded_in_number(tmp_path: Path) -> None:
    source = Counting((10, 5))
    scan(source, Brightness(), tmp_path / "out", batch_size=4, workers=2, on_progress=source.note)
    assert source.most <= 4 + 2 * 4 + 2  # the batch, and what was decoded ahead
    assert [row["id"] for row in rows_of(tmp_path / "out")] == [f"{number:03d}" for number in range(60)]


def test_samples_that_wait_are_bounded_in_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MAX_HELD_PIXELS", 100)
    source, scorer = Counting((10, 5)), Brightness()
    scan(source, scorer, tmp_path / "out", batch_size=16, workers=1, on_progress=source.note)
    assert scorer.sizes == [2] * 30
