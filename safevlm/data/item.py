"""Decodes and hashes one item of a source. An image that cannot be decoded is a result with an error, not an exception."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from safevlm.data.image import MAX_PIXELS, decode
from safevlm.data.source import Item
from safevlm.errors import ImageError, MissingExtraError
from safevlm.types import DecodedItem


def decode_item(item: Item, *, max_pixels: int = MAX_PIXELS) -> DecodedItem:
    """Decode and hash an item's image. Safe to call from many threads.

    Args:
        item: one image of a source.
        max_pixels: the largest width * height that is decoded.

    Returns:
        A DecodedItem with the item's id, number, text and text error. If there are no bytes or they are not an
        image, it has an `error` and no image. It has a `sha256` whenever there are bytes.

    Raises:
        MissingExtraError: if imagehash is not installed.
    """
    image, error, digest, phash = None, item.error, "", ""
    if item.data is not None:
        digest = hashlib.sha256(item.data).hexdigest()
        try:
            image = decode(io.BytesIO(item.data), item.id, max_pixels=max_pixels)
            phash = _phash(image)
        except ImageError as reason:
            error = str(reason)
    if image is None and not error:
        error = f"{item.id}: the source gave no bytes and no reason; check the source"
    return DecodedItem(item.id, image, error, item.number, item.text, item.text_error, digest, phash)


def _phash(image: Image.Image) -> str:
    """The perceptual hash (DCT, 64 bits) as 16 hex digits; near-duplicates differ in few bits.

    The image is first reduced by a whole factor to 128 px or more on its short side, which takes a third of the time.
    """
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError("imagehash", "scan") from error
    factor = min(image.size) // 128
    return str(imagehash.phash(image.reduce(factor) if factor > 1 else image))
