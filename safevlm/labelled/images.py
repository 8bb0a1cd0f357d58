"""What a table writes for an image -> encoded bytes, or a path inside the table's folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safevlm.data.folder import is_image_name
from safevlm.data.inline import from_base64, from_data_url, is_base64, is_data_url, unwrapped
from safevlm.errors import ImageError
from safevlm.printable import shortened

from .raw import BadRowError, is_empty

FIELDS = ("bytes", "path", "url", "image_url", "base64", "data", "source")
"""Where a dict has its image: Hugging Face's `{bytes, path}`, and the parts of chat messages."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHORTEST = 64
"""Bytes of the smallest value that is taken for an image in a column of another name."""


def read_value(value: Any, *, file: Path, folder: Path) -> bytes | Path | None:
    """Read an image as a table writes it; None if the value is empty.

    Args:
        value: bytes, a path relative to the table, base64, a `data:` URL, a dict of `FIELDS`, or a list of one.
        file: the table, for relative paths.
        folder: absolute; what a path may not leave.

    Raises:
        BadRowError: several images, another kind of value, a URL elsewhere, a path that leads out.
    """
    value = single(value)
    if is_empty(value):
        return None
    if isinstance(value, bytes):
        return _decoded(lambda: unwrapped(value))
    if isinstance(value, Path):
        return _inside(value, str(value), folder)
    if not isinstance(value, str):
        raise BadRowError("image", f"is a {type(value).__name__}, not bytes or a path")
    if is_data_url(value):
        return _decoded(lambda: from_data_url(value))
    if is_base64(value) and not _is_file(file.parent / value):
        return _decoded(lambda: from_base64(value))
    if _URL.match(value):
        raise BadRowError(
            "image",
            f"{shortened(value)!r} is a URL, and training fetches none; download the image, and name its file",
        )
    return _inside(file.parent / value, value, folder)


def single(value: Any) -> Any:
    """The one image in a list or dict: bytes, text or another value; None if it is empty."""
    if isinstance(value, list | tuple):
        found = [part for part in value if not is_empty(part)]
        if len(found) > 1:
            raise BadRowError("image", f"names {len(found)} images; a row has one, so write a row for each")
        return single(found[0]) if found else None
    if not isinstance(value, dict) or is_empty(value):
        return value
    known = next((value[name] for name in FIELDS if not is_empty(value.get(name))), None)
    if known is None:
        names = ", ".join(FIELDS)
        raise BadRowError("image", f"is an object with {sorted(map(str, value))!s:.80} and none of {names}")
    return single(known)


def first_of(value: Any) -> Any:
    """The first value in lists of lists that is not empty; None without."""
    if not isinstance(value, list | tuple):
        return value
    return next((found for part in value if not is_empty(found := first_of(part))), None)


def names_image(value: Any) -> bool:
    """Whether a value, in whatever column, is an image or the name of one."""
    if isinstance(value, list | tuple):
        return any(names_image(part) for part in value)
    if isinstance(value, dict):
        return any(names_image(value.get(name)) for name in FIELDS)
    if isinstance(value, bytes):
        return len(value) > _SHORTEST
    if not isinstance(value, str):
        return False
    path = value.partition("?")[0].strip()
    return value.startswith("data:image/") or is_base64(value) or (is_image_name(path) and "\n" not in path)


def holds_image(value: Any) -> bool:
    """`names_image`, of the values within objects and lists, too, whatever their keys."""
    if isinstance(value, dict):
        return any(map(holds_image, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_image, value))
    return names_image(value)


def _inside(path: Path, name: str, folder: Path) -> Path:
    try:
        path = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of symlinks, a NUL
        raise BadRowError("image", f"{shortened(name)!r} is no path ({error}); correct it") from error
    if not path.is_relative_to(folder):
        raise BadRowError(
            "image", f"{shortened(name)!r} leads out of the table's folder {folder}; move it inside"
        )
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # base64 is longer than a path may be
        return False


def _decoded(decode: Callable[[], bytes]) -> bytes:
    try:
        return decode()
    except ImageError as error:
        raise BadRowError("image", str(error)) from error
