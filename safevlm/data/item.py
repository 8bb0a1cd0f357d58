"""Item -> DecodedItem: an encoded image decoded, hashed, and never in the way of the next one."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from safevlm.data.image import MAX_PIXELS, decode
from safevlm.data.source import Item
from safevlm.errors import ImageError, MissingExtraError
from safevlm.types import DecodedItem


def decode_item(item: Item, *, max_pixels: int = MAX_PIXELS) -> DecodedItem:
    """Decode an item's bytes. Safe to call from many threads.

    Args:
        item: one image of a source.
        max_pixels: the largest width * height that is decoded.

    Returns:
        A sample with the item's id, number, text and text error. An item without bytes, or with bytes that are
        no picture, gives a sample with an error; where there are bytes there is a `sha256`.

    Raises:
        MissingExtraError: imagehash is not installed.
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
    """The sign of 64 low frequencies, as 16 hex digits: near-duplicates differ in few bits.

    Of the picture reduced by a whole factor, to 128 px or more on the short side: a third of the time.
    """
    try:
        import imagehash
    except ImportError as error:
        raise MissingExtraError("imagehash", "scan") from error
    factor = min(image.size) // 128
    return str(imagehash.phash(image.reduce(factor) if factor > 1 else image))
