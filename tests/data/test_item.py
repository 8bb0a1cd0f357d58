"""decode_item: what travels along, the two hashes, and that bad bytes cost one sample."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from safevlm.data import Item, decode_item


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_everything_travels_along() -> None:
    data = encoded(picture())
    sample = decode_item(Item("a/b", 3, data, text="a caption"))
    assert (sample.id, sample.number, sample.text, sample.error) == ("a/b", 3, "a caption", "")
    assert sample.sha256 == hashlib.sha256(data).hexdigest()
    assert sample.image is not None
    assert np.array_equal(np.asarray(sample.image), np.asarray(picture()))


def test_the_perceptual_hash_is_of_the_upright_picture() -> None:
    upright = decode_item(Item("a", data=encoded(picture())))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 270 degrees
    turned = encoded(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    small = encoded(picture(size=(32, 24)), "JPEG", quality=80)
    assert len(upright.phash) == 16
    for near in (turned, small):
        sample = decode_item(Item("b", data=near))
        assert sample.sha256 != upright.sha256
        assert bits_apart(sample.phash, upright.phash) <= 6
    assert bits_apart(decode_item(Item("c", data=encoded(picture(1)))).phash, upright.phash) > 16


@pytest.mark.parametrize("data", [b"", b"hello", encoded(picture())[:200]])
def test_bad_bytes_are_a_sample_with_the_reason_and_the_hash(data: bytes) -> None:
    sample = decode_item(Item("x.png", data=data, text="t"))
    assert sample.image is None
    assert sample.error.startswith("x.png: ")
    assert (sample.phash, sample.text) == ("", "t")
    assert sample.sha256 == hashlib.sha256(data).hexdigest()


def test_an_item_without_bytes_keeps_its_reason() -> None:
    sample = decode_item(Item("x", error="gone"))
    assert (sample.image, sample.error, sample.sha256, sample.phash) == (None, "gone", "", "")
    assert "no reason" in decode_item(Item("x")).error


def test_the_limit_on_pixels() -> None:
    assert "limit of 5" in decode_item(Item("x", data=encoded(picture())), max_pixels=5).error


def test_threads_get_what_one_thread_gets() -> None:
    items = [Item(str(i), data=encoded(picture(i))) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode_item, items))
    assert [s.phash for s in found] == [decode_item(item).phash for item in items]
