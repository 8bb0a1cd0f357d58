"""What a table writes for an image -> encoded bytes, or a path inside the table's folder."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any

from safevlm.data.image_root import ImageRoot, shown
from safevlm.errors import ImageError

from .raw import BadRowError, is_empty

FIELDS = ("bytes", "path", "url", "image_url", "base64", "data", "source")
"""Where a dict has its image: Hugging Face's `{bytes, path}`, and the parts of chat messages."""

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD[dl]h|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/\s]+=*\s*")
"""Base64 of JPEG, PNG, GIF, WebP and TIFF, by their first bytes."""
_SHORTEST = 64  # characters; a name that happens to begin so is shorter


def read_value(value: Any, *, file: Path, folder: Path) -> bytes | Path | None:
    """An image as it stands in a table; None where there is none.

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
        text = value[:_SHORTEST].decode("ascii", "replace")
        return _decoded(value.decode("ascii")) if _BASE64.fullmatch(text) and value.isascii() else value
    if isinstance(value, Path):
        return _inside(value, str(value), folder)
    if not isinstance(value, str):
        raise BadRowError("image", f"is a {type(value).__name__}, not bytes or a path")
    if value.startswith("data:"):
        try:
            return ImageRoot(str(folder)).read(value)
        except ImageError as error:
            raise BadRowError("image", str(error)) from error
    if len(value) > _SHORTEST and _BASE64.fullmatch(value):
        return _decoded(value)
    if _URL.match(value):
        raise BadRowError(
            "image",
            f"{shown(value)!r} is a URL, and training fetches none; download the image, and name its file",
        )
    return _inside(file.parent / value, value, folder)


def single(value: Any) -> Any:
    """The one image of lists and dicts: bytes, text, or whatever else stands there; None where there is none."""
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
    path = value.partition("?")[0].strip().lower()
    inline = value.startswith("data:image/") or (len(value) > _SHORTEST and bool(_BASE64.fullmatch(value)))
    return inline or (path.endswith(SUFFIXES) and "\n" not in path)


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
        raise BadRowError("image", f"{shown(name)!r} is no path ({error}); correct it") from error
    if not path.is_relative_to(folder):
        raise BadRowError(
            "image", f"{shown(name)!r} leads out of the table's folder {folder}; move it inside"
        )
    return path


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRowError("image", f"is damaged base64 ({error})") from error
