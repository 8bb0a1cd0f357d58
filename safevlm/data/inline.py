"""Images that are embedded in the data as data URLs or bare base64."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from safevlm.errors import ImageError
from safevlm.printable import shortened

_DATA_URL = re.compile(
    r"\s*(?:data:[\w.+-]+/[\w.+-]+[;,]|(?:data:)?(?:[^,\s]{0,200};)?\s*base64\s*,)",
    re.IGNORECASE,
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")
_QUOTED = re.compile(r"b?(['\"])(.*)\1", re.DOTALL)
"""How Python and JSON print bytes and text, which some tables hold."""

_LEAST = 32
"""Characters of base64: no format has images of less than 24 bytes."""

_HEAD = 64
"""Characters that are looked at first, without white space; 48 bytes."""

_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|II[*+]\0|MM\0[*+]|II\0[*+]|MM[*+]\0|.{4}ftyp|\0\0\0\x0c(?:jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a|8BPS\0|\0\0[\1\2]\0"
    rb"|P[1-7]\s\d|\s*<(?:svg|\?xml)",
    re.DOTALL,
)
"""First bytes of JPEG, PNG, GIF, WebP, BMP, TIFF, and of formats that are errors by name, such as AVIF and SVG."""


def is_data_url(text: str) -> bool:
    """Whether a text is a data URL, `data:image/png;base64,...`; also without `data:`, and in capitals."""
    return _DATA_URL.match(text[:300]) is not None


def is_base64(text: str) -> bool:
    """Whether a text is bare base64 of an image, by the image format's first bytes."""
    head = "".join(_unquoted(text[: 4 * _HEAD]).split())[:_HEAD]
    if len(head) < _LEAST or not _BASE64.fullmatch(head):
        return False
    return _MAGIC.match(base64.b64decode(head.translate(_URL_SAFE)[:_LEAST])) is not None


def from_data_url(url: str) -> bytes:
    """Decode a data URL to the image's bytes.

    Raises:
        ImageError: if the data URL is not base64, or the base64 is damaged.
    """
    head, _, body = url.strip().partition(",")
    if not head.rstrip().lower().endswith("base64"):
        raise ImageError(
            shortened(head, 60, quoted=True), "is a data URL without base64", "encode the image in base64"
        )
    body = unquote_to_bytes(body).decode("latin-1") if "%" in body else body
    return _decoded(body, shortened(head, 60, quoted=True), "is a data URL with damaged base64")


def from_base64(text: str) -> bytes:
    """Decode bare base64, standard or URL-safe, with or without padding, on one line or several.

    Raises:
        ImageError: if the base64 is damaged.
    """
    return _decoded(_unquoted(text), shortened(text, 60, quoted=True), "is an image in damaged base64")


def unwrapped(data: bytes) -> bytes:
    """Decode bytes that are base64 or a data URL; other bytes are returned as they are.

    Raises:
        ImageError: if the base64 is damaged.
    """
    start = data[: 4 * _HEAD].decode("latin-1")
    if is_data_url(start):
        return from_data_url(data.decode("latin-1"))
    return from_base64(data.decode("latin-1")) if is_base64(start) else data


def _unquoted(text: str) -> str:
    text = text.strip()
    quoted = _QUOTED.fullmatch(text)
    return quoted[2] if quoted else re.sub(r"^b?['\"]", "", text)


def _decoded(text: str, name: str, reason: str) -> bytes:
    lines = (line.strip() for line in text.strip().splitlines())
    body = "".join(lines).translate(_URL_SAFE)
    bare = body.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            name, f"{reason} ({error})", "write it again, or store the bytes themselves"
        ) from error
