"""Strips encoded images of what their pixels do not need: text, colour profiles, thumbnails, later frames.

Pillow parses all metadata of a file, is slow if there is much of it, and refuses an image whose metadata is large or
damaged. Therefore the file is reduced to what decides its pixels before Pillow reads it, and files that need much
work per byte (scans of a JPEG, strips of a TIFF) are refused. Pillow's settings are not changed: they are global.

Files that these functions do not understand are returned unchanged; the decoder decides whether they are images.
"""

from __future__ import annotations

import re
import struct
import zlib

MAX_PARTS = 1 << 17
"""Chunks of a PNG, blocks before a GIF's first frame, strips or tiles of a TIFF: 131,072."""

MAX_SCANS = 100
"""Scans of a JPEG: each passes over all of its pixels. Encoders write ten or so."""

MAX_RLE_PIXELS = 1 << 25
"""Pixels of a run-length encoded BMP, 33,554,432: Pillow pads its lines in Python, a byte at a time."""

_MAX_TEXT = 1 << 20
"""Decompressed bytes of a text chunk that may hold the orientation; Pillow refuses more."""


class TooMuchWork(ValueError):
    """The file asks for more work than an image of its size needs."""


def strip_metadata(data: bytes) -> bytes:
    """The file without what its pixels, transparency and orientation do not depend on.

    Args:
        data: an encoded image, or any other bytes.

    Raises:
        TooMuchWork: if it has more than `MAX_PARTS` parts, `MAX_SCANS` scans or `MAX_RLE_PIXELS` pixels.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data.startswith(b"BM"):
        _check_bmp(data)
    return data


def _check_bmp(data: bytes) -> None:
    header = data[14:34].ljust(20, b"\0")  # size, width, height, planes, bits, compression
    _, width, height, _, _, compression = struct.unpack("<IiiHHI", header)
    if compression in (1, 2) and abs(width * height) > MAX_RLE_PIXELS:
        raise TooMuchWork(f"has more than {MAX_RLE_PIXELS:,} run-length encoded pixels")


def _joined(data: bytes, kept: list[slice]) -> bytes:
    whole = sum(len(range(*part.indices(len(data)))) for part in kept) == len(data)
    return data if whole else b"".join(data[part] for part in kept)


# PNG: the chunks that decide pixels, and text that holds an orientation

_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"))
_PNG_TEXT = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_PNG_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")


def _png(data: bytes) -> bytes:
    kept, at, parts = [slice(0, 8)], 8, 0
    seen: set[tuple[bytes, bytes]] = set()
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        parts += 1
        if parts > MAX_PARTS:
            raise TooMuchWork(f"has more than {MAX_PARTS:,} chunks")
        if end > len(data):
            break
        keyword = _orientation_keyword(kind, data, at + 8, end - 4) if kind in _PNG_TEXT else b""
        once = kind in _PNG_TEXT or kind == b"eXIf"
        if (keyword or kind in _PNG_KEPT) and not (once and (kind, keyword) in seen):
            kept.append(slice(at, end))
            seen.add((kind, keyword))
        at = end
        if kind == b"IEND":
            return _joined(data, kept)
    return _joined(data, [*kept, slice(at, None)])  # cut off: the decoder says so


def _orientation_keyword(kind: bytes, data: bytes, start: int, end: int) -> bytes:
    """The keyword of a small text chunk, if it is one that Pillow looks for an orientation under; else empty."""
    keyword, _, rest = data[start : min(end, start + 80)].partition(b"\0")
    if keyword not in _PNG_ORIENTATION or end - start > _MAX_TEXT:
        return b""
    body = start + len(keyword) + 1
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return keyword
    packed = data[body + 1 : end] if kind == b"zTXt" else data[body + 2 : end].split(b"\0", 2)[-1]
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _MAX_TEXT)
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else keyword


# JPEG: tables and scans, JFIF and Adobe headers, the first EXIF and XMP

_JPEG_KEPT = ((0xE1, b"Exif\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xEE, b"Adobe"), (0xE0, b"JFIF"))
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
_SOS, _EOI = 0xDA, 0xD9


def _jpeg(data: bytes) -> bytes:
    kept, at, seen = [slice(0, 2)], 2, set()
    while data[at : at + 1] == b"\xff":
        if data[at + 1 : at + 2] == b"\xff":  # a fill byte
            at += 1
            continue
        marker, length = data[at + 1 : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker[:1] < b"\xc0" or b"\xd0" <= marker <= b"\xd9" or marker == b"\xda" or length < 2:
            break
        end = at + 2 + length
        code = marker[0]
        known = next((k for k in _JPEG_KEPT if k[0] == code and data.startswith(k[1], at + 4)), None)
        if not (0xE0 <= code <= 0xEF or code == 0xFE) or (known and known not in seen):
            kept.append(slice(at, end))
        seen.add(known)
        at = end
    if _scans(data, at) > MAX_SCANS:
        raise TooMuchWork(f"has more than {MAX_SCANS} scans")
    return _joined(data, [*kept, slice(at, None)])


def _scans(data: bytes, at: int) -> int:
    """How many scans there are up to the end of the image, `MAX_SCANS` + 1 at most."""
    scans = 0
    while scans <= MAX_SCANS and (found := _MARKER.search(data, at)):
        code, at = data[found.end() - 1], found.end()
        if code == _EOI:
            break
        scans += code == _SOS
        if code >= 0xC0 and code != 0xD8:  # with a length; within a scan's data there is no such marker
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans


# GIF: the header, graphic control blocks, and all from the first frame on


def _gif(data: bytes) -> bytes:
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    kept, parts, control = [slice(0, at)], 0, slice(0, 0)
    while data[at : at + 1] == b"!":
        start, at = at, at + 2
        while at < len(data) and data[at]:
            at, parts = at + 1 + data[at], parts + 1
        at, parts = at + 1, parts + 1
        if parts > MAX_PARTS:
            raise TooMuchWork(f"has more than {MAX_PARTS:,} blocks before its first frame")
        if (
            data[start + 1 : start + 3] == b"\xf9\4"
            and data[start + 3 : start + 4] > b""
            and data[start + 3] & 1
        ):
            control = slice(start, at)  # with a transparent colour
    return _joined(data, [*kept, control, slice(at, None)])


# TIFF: the first directory, of it the fields that the decoders read

_TIFF_KEPT = frozenset(
    (
        *range(254, 260), 262, 263, 264, 265, 266, *range(273, 275), *range(277, 280), 280, 281, 284, 290, 291, 292,
        293, 297, 301, 317, 318, 319, 320, 321, *range(322, 326), 332, 334, 336, *range(338, 342), 347,
        *range(512, 522), *range(529, 533), 48129, 50674,
    )
)  # fmt: skip
"""Fields of TIFF 6.0 that say how pixels are stored, and the orientation; not text, thumbnails, ICC, EXIF, XMP.
48129 tells of JPEG XR, 50674 is LERC's."""

_STRIPS, _TILES = 273, 324
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


def _tiff(data: bytes) -> bytes:
    order = "<" if data[:1] == b"I" else ">"
    is_big = 43 in data[2:4]
    head, count, entry, next_at = ("Q", "Q", 20, "Q") if is_big else ("L", "H", 12, "L")
    try:
        (at,) = struct.unpack_from(order + head, data, 8 if is_big else 4)
        (fields,) = struct.unpack_from(order + count, data, at)
    except (struct.error, OverflowError):
        return data
    first = at + struct.calcsize(order + count)
    if first + fields * entry > len(data):
        return data
    if fields > MAX_PARTS:
        raise TooMuchWork(f"has a directory of {fields:,} fields")
    kept: list[bytes] = []
    for start in range(first, first + fields * entry, entry):
        tag, kind, values = struct.unpack_from(order + "HH" + head, data, start)
        if tag in (_STRIPS, _TILES) and values > MAX_PARTS:
            raise TooMuchWork(f"has {values:,} strips or tiles, more than {MAX_PARTS:,}")
        if tag in _TIFF_KEPT and values * _SIZES.get(kind, 8) <= len(data):
            kept.append(data[start : start + entry])
    whole = bytearray(data)
    directory = struct.pack(order + count, len(kept)) + b"".join(kept) + struct.pack(order + next_at, 0)
    whole[at : at + len(directory)] = directory
    return bytes(whole)
