"""The sha256 of every image of a table: an image is read once, hashed, and decoded from the same bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

from safevlm.data.image import MAX_ENCODED, decode, open_regular
from safevlm.errors import ImageError

Encoded: TypeAlias = bytes | Path
"""An image as a table has it: its encoded bytes, or a file."""
Keys: TypeAlias = "list[tuple[str, str]]"
"""Per image the sha256 of its encoded bytes and the reason that it cannot be read; one of the two is empty."""
Distribute: TypeAlias = "Callable[[Sequence[Encoded], Callable[[Sequence[Encoded]], Keys]], Keys]"
"""Applies a function to all images, in order; may split the work among processes."""

THREADS = 4


def image_keys(images: Sequence[Encoded], *, decoded: bool, distribute: Distribute | None = None) -> Keys:
    """Read and hash images.

    Args:
        images: encoded bytes or files.
        decoded: whether an image that cannot be decoded is an error.
        distribute: splits the images among processes; None: this process reads all of them.
    """
    work = partial(_in_threads, decoded=decoded)
    return work(images) if distribute is None else distribute(images, work)


def _in_threads(images: Sequence[Encoded], *, decoded: bool) -> Keys:
    with ThreadPoolExecutor(THREADS) as pool:  # reading and decoding release the GIL
        return list(pool.map(partial(_key, decoded=decoded), images))


def _key(image: Encoded, *, decoded: bool) -> tuple[str, str]:
    try:
        data, name = (image, f"bytes ({len(image)})") if isinstance(image, bytes) else _read(image)
        if decoded:
            decode(io.BytesIO(data), name)
    except (ImageError, OSError) as error:
        return "", str(error)
    return hashlib.sha256(data).hexdigest(), ""


def _read(path: Path) -> tuple[bytes, str]:
    """A file's bytes and its name for messages."""
    with open_regular(path) as file:
        data = file.read(MAX_ENCODED + 1)
    if len(data) > MAX_ENCODED:
        raise ImageError(str(path), f"has more than {MAX_ENCODED:,} bytes, the limit", "shrink it")
    return data, str(path)
