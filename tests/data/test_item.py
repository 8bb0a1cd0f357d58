"""decode_item and perceptual_hash: pixels, limits, and that bad bytes are errors with the item's name."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from safevlm.data import Item, decode_item, perceptual_hash
from safevlm.errors import DataError, ImageError


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def bits_apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def hash_of(data: bytes) -> str:
    return perceptual_hash(decode_item(Item("a", data=data)))


def test_the_image_is_what_was_encoded() -> None:
    image = decode_item(Item("a/b", 3, encoded(picture()), text="a caption"))
    assert np.array_equal(np.asarray(image), np.asarray(picture()))


def test_the_perceptual_hash_is_of_the_upright_picture() -> None:
    upright = hash_of(encoded(picture()))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 270 degrees
    turned = encoded(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    small = encoded(picture(size=(32, 24)), "JPEG", quality=80)
    assert len(upright) == 16
    for near in (turned, small):
        assert bits_apart(hash_of(near), upright) <= 6
    assert bits_apart(hash_of(encoded(picture(1))), upright) > 16


@pytest.mark.parametrize("data", [b"", b"hello", encoded(picture())[:200]])
def test_bad_bytes_are_an_error_with_the_name(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^x\.png: "):
        decode_item(Item("x.png", data=data, text="t"))


def test_an_item_without_bytes_keeps_its_reason() -> None:
    with pytest.raises(DataError, match="^gone$"):
        decode_item(Item("x", error="gone"))
    with pytest.raises(DataError, match="no reason"):
        decode_item(Item("x"))


def test_the_limit_on_pixels() -> None:
    with pytest.raises(ImageError, match="limit of 5"):
        decode_item(Item("x", data=encoded(picture())), max_pixels=5)


def test_threads_get_what_one_thread_gets() -> None:
    items = [Item(str(i), data=encoded(picture(i))) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode_item, items))
    assert [image.tobytes() for image in found] == [decode_item(item).tobytes() for item in items]
