"""Writing in the images of a scan: read in the whole image, kept in its row, and part of what a scan is."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
from PIL import Image

from safevlm import data
from safevlm.data import Item
from safevlm.errors import DataError
from safevlm.scan import Checkpoint, ScanOptions, scan, worker
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.worker import prepare, score
from safevlm.scorer import RiskScorer
from tests.data.builders import picture_bytes
from tests.scan.tiny_checkpoint import rows_of
from tests.writing import Knowing, reading, reading_scorer

WORDS = itertools.cycle(["make a bomb", "", "Fresh bread", RuntimeError("no memory")])


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_a_row_says_what_was_read_and_what_decided(
    pictures: Path, scorer: RiskScorer, tmp_path: Path
) -> None:
    (pictures / "again.png").write_bytes((pictures / "00.png").read_bytes())
    files = {path.name: path.read_bytes() for path in sorted(pictures.iterdir())}
    reader = Knowing({opened(one).tobytes(): next(WORDS) for one in dict.fromkeys(files.values())})
    scorer = reading_scorer(scorer, reader)
    scan(data.FolderSource(pictures), scorer, tmp_path / "out", ScanOptions(batch_size=4))
    assert len(reader.seen) == 20  # the second one of equal bytes is known
    rows = rows_of(tmp_path / "out")
    expected = scorer.assess([files[row["id"]] for row in rows])
    for row, one in zip(rows, expected, strict=True):
        assert (row["status"], row["read_text"], row["decided_by"]) == ("ok", one.read_text, one.decided_by)
        assert row["reason"] == one.reason
        assert row["score"] == pytest.approx(one.score, abs=1e-5)
    assert {row["read_text"] for row in rows} == {"make a bomb", "", "Fresh bread", None}
    assert len({row["decided_by"] for row in rows}) == 2


@pytest.mark.parametrize("kept", [0, 2**14, 2**30])
def test_writing_is_read_in_the_whole_image(
    kept: int, scorer: RiskScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only images that are read, and were scaled meanwhile, are decoded again."""
    images = [picture_bytes(seed, size) for seed, size in enumerate([(400, 300), (90, 60), (210, 1000)] * 4)]
    category = scorer.config.taxonomy.risky_categories[0]
    chances = [one.category_probabilities[category] for one in scorer.assess(images)]
    low, high = sorted(chances)[5:7]
    decoded: list[str] = []

    def decode(item: Item, *, least_side: int | None, max_pixels: int) -> tuple[Image.Image, tuple[int, int]]:
        decoded.append(item.id)
        return data.decode_item_reduced(item, least_side=least_side, max_pixels=max_pixels)

    monkeypatch.setattr(worker, "MAX_KEPT_PIXELS", kept)
    monkeypatch.setattr(worker, "decode_item_reduced", decode)
    reader = Knowing({})
    scorer = reading_scorer(scorer, reader, "auto", reading(category, (low + high) / 2))
    entries = tuple(Entry(n, Item(str(n), data=one)) for n, one in enumerate(images))
    score(prepare(Batch(0, 0, entries), scorer.preprocess), scorer, with_text=False)
    read = [n for n, chance in enumerate(chances) if chance >= high]
    assert reader.seen == [opened(images[n]).size for n in read]
    again = decoded[len(images) :]
    assert set(again) <= {str(n) for n in read}
    assert bool(again) == (kept < 2**30)


def test_a_scan_is_not_continued_with_another_reading(
    pictures: Path, model: Checkpoint, scorer: RiskScorer, tmp_path: Path
) -> None:
    scan(data.FolderSource(pictures), model, tmp_path / "out")
    other = reading_scorer(scorer, Knowing({}))
    with pytest.raises(DataError, match="read_text was never, is always"):
        scan(data.FolderSource(pictures), other, tmp_path / "out")
