"""An image is decoded and hashed once in a scan, whatever its verdict, and its thumbnail is that of the whole image."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safevlm import data
from safevlm.data import Item
from safevlm.scan import Checkpoint, ScanOptions, scan, worker
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.worker import make_thumbnails, prepare, score
from safevlm.scorer import RiskScorer
from tests.data.builders import encoded, picture_bytes
from tests.scan.tiny_checkpoint import rows_of


def test_flagged_images_are_decoded_and_hashed_once(
    pictures: Path, model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "again.png").write_bytes((pictures / "00.png").read_bytes())
    decoded, hashed, perceptually = Counter[str](), Counter[bytes](), Counter[bytes]()

    def decode_item_reduced(item: Item, **options: Any) -> tuple[Image.Image, tuple[int, int]]:
        decoded[item.id] += 1
        return data.decode_item_reduced(item, **options)

    def perceptual_hash(image: Image.Image) -> str:
        perceptually[image.tobytes()] += 1
        return data.perceptual_hash(image)

    def sha256(content: bytes = b"", **options: Any) -> Any:
        hashed[content] += 1
        return whole_sha256(content, **options)

    whole_sha256 = hashlib.sha256
    scorer = model.load()
    monkeypatch.setattr(worker, "decode_item_reduced", decode_item_reduced)
    monkeypatch.setattr(worker, "perceptual_hash", perceptual_hash)
    monkeypatch.setattr(hashlib, "sha256", sha256)
    scan(data.FolderSource(pictures), scorer, tmp_path / "out", ScanOptions(batch_size=4))
    flagged = {row["sha256"] for row in rows_of(tmp_path / "out") if row["verdict"] == "unsafe"}
    assert len(rows_of(tmp_path / "out", "thumbnails")) == len(flagged) > 5
    files = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert {name: decoded[name] for name in files} == dict.fromkeys(files, 1) | {"again.png": 0}
    assert sorted(perceptually.values()) == [1] * 20
    assert {content: hashed[content] for content in files.values()} == Counter(files.values())


@pytest.mark.parametrize("kept", [0, 2**14, 2**30])
def test_thumbnails_do_not_depend_on_what_is_kept(
    kept: int, scorer: RiskScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_KEPT_PIXELS", kept)
    images = [picture_bytes(seed, size) for seed, size in enumerate([(400, 300), (90, 60), (210, 1000)] * 4)]
    entries = tuple(Entry(n, Item(str(n), data=one)) for n, one in enumerate(images))
    prepared = prepare(Batch(0, 0, entries), scorer.preprocess)
    pixels = [entry.image.width * entry.image.height for entry in prepared.batch.entries]
    assert sum(n for n in pixels if n > 192 * 192) <= kept
    found = make_thumbnails(score(prepared, scorer, with_text=False)).entries
    assert {bool(entry.thumbnail) for entry in found} == {True, False}  # some are flagged, some are safe
    for entry, one in zip(found, images, strict=True):
        assert entry.image is None
        if entry.thumbnail:
            whole, file = Image.open(io.BytesIO(one)).convert("RGB"), io.BytesIO()
            whole.thumbnail((192, 192))
            whole.save(file, "WEBP", quality=70, method=2)
            assert entry.thumbnail == file.getvalue()


def jpeg(seed: int, size: tuple[int, int], *, turned: bool = False) -> bytes:
    """A smooth picture, as photographs are; `turned`: stored on its side."""
    exif = Image.Exif()
    exif[274] = 6 if turned else 1
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize(size), "JPEG", quality=90, exif=exif)


@pytest.mark.parametrize(
    ("size", "scale"), [((255, 900), 1), ((256, 900), 2), ((511, 600), 2), ((600, 512), 4)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_jpeg_is_decoded_at_the_scale_that_keeps_twice_the_towers_side(
    size: tuple[int, int], scale: int, turned: bool, scorer: RiskScorer
) -> None:
    one = jpeg(0, size, turned=turned)
    (entry,) = prepare(Batch(0, 0, (Entry(0, Item("a", data=one)),)), scorer.preprocess, 64).batch.entries
    whole = data.read_image(one)
    assert entry.image is not None
    assert entry.size == whole.size == (size[::-1] if turned else size)
    assert entry.image.size == tuple(-(-edge // scale) for edge in whole.size)
    assert np.abs(np.asarray(entry.image, int) - np.asarray(whole.reduce(scale), int)).mean() < 3
    assert (int(entry.phash, 16) ^ int(data.perceptual_hash(whole), 16)).bit_count() <= 6  # still alike


def test_other_formats_and_scorers_without_a_side_see_every_pixel(scorer: RiskScorer) -> None:
    items = [Item("a", data=picture_bytes(1, (400, 300))), Item("b", data=jpeg(1, (400, 300)))]
    entries = tuple(Entry(n, item) for n, item in enumerate(items))
    for side, reduced in ((scorer.scaled_side, [False, True]), (None, [False, False])):
        found = prepare(Batch(0, 0, entries), scorer.preprocess, side).batch.entries
        assert [entry.image.size != (400, 300) for entry in found if entry.image is not None] == reduced
        assert [entry.size for entry in found] == [(400, 300)] * 2
