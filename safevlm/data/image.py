"""Encoded bytes -> RGB image, or an `ImageError` that says why not.

What made this file awkward: a scan meets every kind of broken or hostile file.

- The format is found by its first bytes, never by its name, and only raster formats whose decoders
  are libraries in this process are tried (EPS, for one, would start ghostscript).
- The plugin classes are called directly, because `PIL.Image.open` applies a limit that is global
  to the process and warns through a global filter; here the limit is an argument.
- Size comes from the header and is checked before a pixel is decoded.
- Metadata are cut out first (`strip_metadata`), since Pillow refuses images for large or damaged ones.
- Only regular files are opened, and without blocking, so a FIFO or a device cannot hang a scan.

Colours are taken as they are coded: embedded ICC profiles are not applied. Of an animation only the
first frame is read.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from safevlm.data.metadata import TooMuchWork, strip_metadata
from safevlm.errors import ImageError

logger = logging.getLogger(__name__)

MAX_PIXELS = 89_478_485
"""Pillow's own limit, `Image.MAX_IMAGE_PIXELS`: 1 GiB // 4 // 3, a quarter GiB of 24-bit pixels."""

MAX_RATIO = 50
"""Long side over short side. Processors scale the short side to theirs before they crop: at 336 px and this
ratio an image becomes 336 * 336 * 50 = 5.6 million pixels, 68 MB in float32; 1 x 200 would be 22.6 million."""

MAX_SIDE = 448
"""The largest short side that is counted on; towers have 224, 336, 384 or 448."""

MAX_ENCODED = 1 << 30
"""The largest file that is decoded, 1 GiB: it is held, once more where metadata are cut out."""

_STRIP = 1 << 20
"""Pixels of a wide grey image that are scaled at a time: 8 MiB in float64."""

FORMATS = "JPEG, PNG, GIF, WebP, BMP, TIFF"

_TRANSPOSE: dict[object, Image.Transpose] = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15

_Opener = Callable[[IO[bytes]], ImageFile.ImageFile]


def read_image(
    source: Image.Image | str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read an image as 8-bit RGB, upright, without metadata.

    EXIF orientation is applied; transparency is laid over white; 16-bit and 32-bit grey is scaled
    to 8 bits (see `_grey`); of an animation the first frame is taken. The source is not changed.

    Args:
        source: a PIL image, a path, or the encoded bytes (JPEG, PNG, GIF, WebP, BMP or TIFF,
            decided by content).
        max_pixels: the largest width * height that is decoded.

    Returns:
        A new image of mode RGB with an empty `info`.

    Raises:
        ImageError: if there is no such regular file, or it is empty, not an image, of another format, damaged or
            truncated, without pixels, larger than `max_pixels`, or thinner than 1 to `MAX_RATIO`.
        TypeError: if `source` is none of the three kinds.
    """
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "the PIL image")
        with _explained(name):
            _check_size(source, name, max_pixels)
            return _upright_rgb(source)
    if isinstance(source, bytes):
        return decode(io.BytesIO(source), f"bytes ({len(source)})", max_pixels=max_pixels)
    if isinstance(source, str | os.PathLike):
        with open_regular(source) as file:
            return decode(file, str(source), max_pixels=max_pixels)
    raise TypeError(
        f"an image is a PIL image, a path or encoded bytes; got {type(source).__name__}; "
        "turn arrays into images with PIL.Image.fromarray"
    )


def image_size(source: bytes | str | Path) -> tuple[int, int]:
    """(width, height) in pixels of the upright image that `read_image` gives, in most formats without decoding it.

    Args:
        source: a path, or the encoded bytes.

    Raises:
        ImageError: if there is no such file, it is not an image, or its header is damaged.
    """
    if isinstance(source, bytes):
        data, name = source, f"bytes ({len(source)})"
    else:
        with open_regular(source) as file:
            data, name = file.read(MAX_ENCODED), str(source)
    opener = _opener(data[:16], name)
    with _explained(name), opener(io.BytesIO(strip_metadata(data))) as image:
        width, height = image.size
        if _orientation(image) not in _SIDEWAYS:
            return width, height
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return height, width
    return read_image(source).size  # Pillow turns TIFFs itself, some versions when they are opened


def prepared_pixels(width: int, height: int) -> int:
    """The most pixels that an image has in memory: its own, or those after scaling its short side to `MAX_SIDE`."""
    short, long = sorted((width, height))
    return max(width * height, MAX_SIDE * MAX_SIDE * long // max(short, 1))


def decode(file: BinaryIO, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Like `read_image`, from a seekable binary file at its start; `name` is for messages."""
    return decode_reduced(file, name, least_side=None, max_pixels=max_pixels)[0]


def decode_reduced(
    file: BinaryIO, name: str, *, least_side: int | None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """Like `decode`, but a JPEG at 1/2, 1/4 or 1/8 of its size, the smallest whose sides have `least_side` pixels.

    The decoder then computes fewer coefficients of each block, which averages its pixels.

    Args:
        least_side: None: the full size.

    Returns:
        The image, and the (width, height) in pixels of the full one, upright.
    """
    opener = _opener(file.read(16), name)
    if file.seek(0, os.SEEK_END) > MAX_ENCODED:
        raise ImageError(name, f"has more than {MAX_ENCODED:,} bytes, the limit", "shrink it")
    file.seek(0)
    with _explained(name), opener(io.BytesIO(strip_metadata(file.read(MAX_ENCODED)))) as image:
        _check_size(image, name, max_pixels)
        full = image.size
        if least_side is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (least_side, least_side))
        reduced = image.size != full
        rgb = _upright_rgb(image)
        if not reduced:
            return rgb, rgb.size
        return rgb, (full[1], full[0]) if _orientation(image) in _SIDEWAYS else full


def holds_image(head: bytes) -> bool:
    """Whether these first 16 bytes of a file are those of an image format that is read."""
    try:
        _opener(head, "the file")
    except ImageError:
        return False
    return not head.startswith(b"BM") or head[6:10] == bytes(4)  # words may begin so, too


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Raises ImageError for everything else, without blocking on a pipe or device."""
    name = str(path)
    try:
        _check_regular(os.stat(path).st_mode, name)
        # Non-blocking, and looked at again once open: the path may have changed since.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError as error:
        remedy = "download it first" if "://" in name else "check the path"
        raise ImageError(name, "no such file", remedy) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(
            ascii(name), f"cannot be opened ({reason})", "check the path and its permissions"
        ) from error
    with file:
        _check_regular(os.fstat(file.fileno()).st_mode, name)
        yield file


def _check_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise ImageError(name, "is a directory", "give the files inside it, or scan it as a folder")
    if not stat.S_ISREG(mode):
        raise ImageError(
            name, "is not a regular file but a pipe, socket or device", "copy the picture to a file"
        )


def _opener(head: bytes, name: str) -> _Opener:
    """The plugin class for a file that starts with these bytes."""
    if not head:
        raise ImageError(name, "is empty (0 bytes)", "save or download it again")
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if head.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile
    if head[:4] in (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+"):
        return TiffImagePlugin.TiffImageFile
    raise ImageError(name, "is not an image of a known format", f"convert it to one of {FORMATS}")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises on bad data into an ImageError that names the file.

    The one place where any exception is taken for the file's fault: Pillow's plugins run assertions and look up
    attributes on what a file says, so that no list of exceptions is complete. Ctrl-C and exits pass.
    """
    try:
        yield
    except ImageError:
        raise
    except TooMuchWork as error:
        raise ImageError(name, f"{error}, which take too long to decode", "save it again") from error
    except MemoryError as error:
        raise ImageError(name, "does not fit into memory when decoded", "shrink it") from error
    except Exception as error:
        what = str(error) or type(error).__name__
        raise ImageError(name, f"is damaged or truncated ({what})", "save or download it again") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(name, f"has no pixels ({width} x {height})", "save it again")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(
            name,
            f"{width} x {height} is thinner than 1 to {MAX_RATIO}, which takes gigabytes to scale",
            "cut it up",
        )
    pixels = width * height
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile may be larger than the image
        pixels = max(pixels, _number(image, _TILE_WIDTH) * _number(image, _TILE_LENGTH))
    if pixels > max_pixels:
        raise ImageError(
            name,
            f"{width} x {height} takes {pixels:,} pixels to decode, more than the limit of {max_pixels:,} "
            "(decompression bomb?)",
            "shrink it, or raise max_pixels if you trust it",
        )


def _number(image: TiffImagePlugin.TiffImageFile, tag: int) -> int:
    value = image.tag_v2.get(tag, 0)
    return value if isinstance(value, int) else 0


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turned = _TRANSPOSE.get(_orientation(image))
    rgb = _rgb(image)
    if turned is not None:
        rgb = rgb.transpose(turned)
    rgb.info = {}  # no orientation left behind to be applied twice
    return rgb


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation, 1 to 8; None where there is none or where the EXIF block is damaged."""
    try:
        with _explained("EXIF"):
            return image.getexif().get(ExifTags.Base.Orientation)
    except ImageError as error:
        logger.debug("EXIF block ignored: %s", error)
        return None


def _rgb(image: Image.Image) -> Image.Image:
    """A new RGB image of the same pixels, transparency laid over white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _grey(image)
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Scale wide grey values to 8 bits, rounding to the nearest, where `convert` would clip.

    16-bit modes span 0..65535. Mode I (int32) and F (float32) do not say what white is: it is the
    smallest of 1 (F only), 255, 65535 that no value exceeds; where there are larger or negative
    values, the image's own minimum and maximum become black and white. NaN counts as black.
    """
    ends = [(strip.min(), strip.max()) for _, _, strip in _strips(image)]
    low, high = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
    whites = [65535.0] if image.mode.startswith("I;16") else [255.0, 65535.0]
    if image.mode == "F":
        whites = [1.0, *whites]
    white = next((white for white in whites if low >= 0 and high <= white), None)
    low, high = (0.0, white) if white is not None else (low, high)
    span = high - low or 1.0
    key = image.info.get("transparency")  # the one grey value that is transparent, in the wide range
    scaled = np.empty((image.height, image.width), np.uint8)
    opaque = np.empty_like(scaled) if isinstance(key, int) else None
    for rows, values, finite in _strips(image):
        scaled[rows] = np.rint((finite - low) * (255.0 / span)).astype(np.uint8)
        if opaque is not None:
            opaque[rows] = np.where(values == key, 0, 255)
    grey = Image.fromarray(scaled)
    if opaque is not None:
        grey.putalpha(Image.fromarray(opaque))
    return grey


def _strips(image: Image.Image) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Runs of rows, their values as they are, and as float64 without NaN and infinity."""
    height = max(1, _STRIP // image.width)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        values = np.asarray(image.crop((0, top, image.width, bottom)))
        limits = np.finfo(np.float32)
        finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=limits.max, neginf=limits.min)
        yield slice(top, bottom), values, finite
