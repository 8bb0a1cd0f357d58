"""Item -> RGB image, and the image's perceptual hash."""

from __future__ import annotations

import io

from PIL import Image

from safevlm.data.image import MAX_PIXELS, decode_reduced
from safevlm.data.source import Item
from safevlm.errors import DataError, MissingExtraError


def decode_item(item: Item, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an item's bytes. Safe to call from many threads.

    Args:
        item: one image of a source.
        max_pixels: the largest width * height that is decoded.

    Returns:
        The upright image, 8-bit RGB.

    Raises:
        ImageError: the bytes are not an image, or one that is damaged or too large; see `read_image`.
        DataError: the item has no bytes; the message is the item's own error where it has one.
    """
    return decode_item_reduced(item, least_side=None, max_pixels=max_pixels)[0]


def decode_item_reduced(
    item: Item, *, least_side: int | None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """`decode_item`, for what needs no more than `least_side` pixels on a side: a large JPEG is decoded smaller.

    Args:
        least_side: both sides of a reduced image have as many pixels or more; None: the full size.

    Returns:
        The image, and the (width, height) in pixels of the full one, upright.
    """
    if item.data is None:
        raise DataError(item.error or f"{item.id}: the source gave no bytes and no reason; check the source")
    return decode_reduced(io.BytesIO(item.data), item.id, least_side=least_side, max_pixels=max_pixels)


def perceptual_hash(image: Image.Image) -> str:
    """The signs of 64 low frequencies, as 16 hex digits: near-duplicates differ in few bits.

    The image is first reduced by a whole factor, to 128 px or more on the short side, which takes a third of
    the time.

    Raises:
        MissingExtraError: if imagehash is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError("imagehash", "scan") from error
    factor = min(image.size) // 128
    return str(imagehash.phash(image.reduce(factor) if factor > 1 else image))
