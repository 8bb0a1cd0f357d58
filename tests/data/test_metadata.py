"""Metadata do not change pixels: an image with any of them is the image without; work per byte is limited."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from safevlm.data import read_image
from safevlm.data.metadata import MAX_PARTS, MAX_SCANS, strip_metadata
from safevlm.errors import ImageError
from tests.data.builders import encoded

LARGE = b"node graph " * 200_000  # 2.2 MB


def picture(width: int = 48, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def block(label: int, data: bytes) -> bytes:
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"!" + bytes([label]) + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


PACKED = zlib.compress(LARGE)
PNG_EXTRA = {
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + PACKED),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED),
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + PACKED),
    "exif as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + PACKED),
    "tEXt": chunk(b"tEXt", b"k\0" + LARGE) * 40,
    "iCCP": chunk(b"iCCP", b"profile\0\0" + PACKED),
    "bad checksum": chunk(b"tEXt", b"k\0v")[:-1] + b"x",
    "unknown compression": chunk(b"zTXt", b"k\0\7v"),
    "short chunks": b"".join(
        chunk(kind, b"") for kind in (b"pHYs", b"sRGB", b"acTL", b"fcTL", b"cHRM", b"gAMA")
    ),
    "frames out of order": chunk(b"acTL", struct.pack(">II", 2, 0))
    + chunk(b"fcTL", bytes(3) + b"\7" + bytes(22)),
    "private": chunk(b"prVt", LARGE),
}
JPEG_EXTRA = {
    "comments": segment(0xFE, b"x" * 65_000) * 200,
    "ICC": segment(0xE2, b"ICC_PROFILE\0\1\xff" + b"x" * 60_000) * 100,
    "EXIF": segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 200,
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed" + b"\xff" * 20),
    "a thumbnail": segment(0xE1, b"Exif\0\0" + encoded(picture(), "JPEG", progressive=True)[:60_000]),
    "fill bytes": b"\xff\xff" + segment(0xE5, b"abc") + b"\xff",
}


@pytest.mark.parametrize("extra", PNG_EXTRA)
@pytest.mark.parametrize("place", ["front", "behind"])
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_png_chunks_do_not_matter(extra: str, place: str, mode: str) -> None:
    image = picture() if mode == "RGB" else picture().quantize(16)
    png = encoded(image, **({"transparency": b"\0\x80"} if mode == "P" else {}))
    at = 33 if place == "front" else png.rindex(b"IEND") - 4
    found = read_image(png[:at] + PNG_EXTRA[extra] + png[at:])
    assert np.array_equal(found, read_image(png))


@pytest.mark.parametrize("extra", JPEG_EXTRA)
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"mode": "CMYK"}, {"mode": "L"}, {"keep_rgb": True}]
)
def test_jpeg_segments_do_not_matter(extra: str, options: dict[str, Any]) -> None:
    options = dict(options)
    jpeg = encoded(picture().convert(options.pop("mode", "RGB")), "JPEG", **options)
    assert np.array_equal(
        read_image(jpeg[:2] + JPEG_EXTRA[extra] + jpeg[2:]), Image.open(io.BytesIO(jpeg)).convert("RGB")
    )


@pytest.mark.parametrize("label", [0xFE, 0xFF, 0x01])
def test_gif_blocks_do_not_matter(label: int) -> None:
    gif = encoded(picture().quantize(16), "GIF", transparency=3)
    at = 13 + 3 * 16
    head = b"ICCRGBG1012" if label == 0xFF else b""
    found = read_image(gif[:at] + block(label, head + LARGE) + gif[at:])
    assert np.array_equal(found, read_image(gif))


def test_metadata_of_webp_and_tiff_do_not_matter() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker" * 10_000
    options: dict[str, Any] = {"icc_profile": LARGE, "exif": exif}
    webp = encoded(picture(), "WEBP", lossless=True, xmp=LARGE, **options)
    assert np.array_equal(read_image(webp), picture())
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        for big in (False, True):
            tiff = encoded(picture(), "TIFF", compression=compression, big_tiff=big, **options)
            assert np.array_equal(read_image(tiff), picture())
            assert len(Image.open(io.BytesIO(strip_metadata(tiff))).tag_v2) < len(
                Image.open(io.BytesIO(tiff)).tag_v2
            )  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "F"])
def test_tiffs_of_every_mode_are_what_they_were(mode: str) -> None:
    image = picture().convert("L").convert(mode) if mode in ("I;16", "F", "LA") else picture().convert(mode)
    for compression in ("raw", "tiff_lzw", *(["jpeg"] if mode in ("L", "RGB", "YCbCr") else [])):
        tiff = encoded(image, "TIFF", compression=compression)
        with Image.open(io.BytesIO(tiff)) as theirs, Image.open(io.BytesIO(strip_metadata(tiff))) as ours:
            assert ours.mode == theirs.mode
            assert ours.tobytes() == theirs.tobytes()


def test_an_orientation_is_kept_wherever_pillow_looks_for_it() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    jpeg = encoded(picture(), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}"
    profile = PngImagePlugin.PngInfo()
    profile.add_text("Raw profile type exif", raw, zip=True)
    for data in (
        encoded(picture(), pnginfo=text),
        encoded(picture(), pnginfo=profile),
        jpeg[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp) + jpeg[2:],
        encoded(picture(), "WEBP", xmp=xmp),
        encoded(picture(), "TIFF", exif=exif, compression="tiff_lzw"),
    ):
        assert read_image(data).size == (40, 48)


def test_no_setting_of_pillows_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 10)
    png = encoded(picture())
    assert np.array_equal(read_image(png[:33] + PNG_EXTRA["iTXt"] + png[33:]), picture())
    assert PngImagePlugin.MAX_TEXT_CHUNK == 10


# Work per byte


def progressive(scans: int) -> bytes:
    """A grey image whose last scan is repeated."""
    jpeg = encoded(picture().convert("L"), "JPEG", progressive=True)
    at = jpeg.rindex(b"\xff\xda")
    last, own = jpeg[at:-2], jpeg.count(b"\xff\xda")
    return jpeg[:at] + last * (scans - own + 1) + b"\xff\xd9"


def strips(count: int, kind: int = 1) -> bytes:
    """A TIFF of one column and `count` rows that says it has a strip for each."""
    fields = [
        (256, 4, 1, 1),
        (257, 4, 1, 40),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, kind, count, 200),
    ]
    fields += [(277, 3, 1, 1), (278, 4, 1, 1), (279, kind, count, 200)]
    body = b"".join(struct.pack("<HHII", *field) for field in fields)
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + body + bytes(4)).ljust(
        200, b"\0"
    ) + b"\x01" * count


@pytest.mark.parametrize(
    ("make", "most", "word"),
    [
        (progressive, MAX_SCANS, "scans"),
        (strips, MAX_PARTS, "strips"),
        (lambda n: (png := encoded(picture()))[:33] + chunk(b"prVt", b"") * (n - 3) + png[33:], MAX_PARTS, "chunks"),
        (lambda n: b"GIF89a" + bytes(7) + b"!\xfe\0" * n + encoded(picture().quantize(16), "GIF")[61:], MAX_PARTS, "blocks"),
    ],
    ids=["jpeg", "tiff", "png", "gif"],
)  # fmt: skip
def test_what_asks_for_much_work_is_refused(make: Callable[[int], bytes], most: int, word: str) -> None:
    strip_metadata(make(most))
    with pytest.raises(ImageError, match=f"{word}.*too long to decode"):
        read_image(make(most + 1))


@pytest.mark.parametrize("compression", [0, 1, 2])
def test_a_large_bmp_of_runs_is_refused(compression: int) -> None:
    def bmp(width: int) -> bytes:
        size = struct.pack("<IiiHHIIiiII", 40, width, 1 << 13, 1, 8, compression, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + size + bytes(1024)

    strip_metadata(bmp(1 << 12))
    with pytest.raises(ImageError, match="too long to decode" if compression else "truncated"):
        read_image(bmp(1 + (1 << 12)))


def test_scans_behind_the_end_or_in_a_thumbnail_do_not_count() -> None:
    jpeg = encoded(picture(), "JPEG")
    thumbnail = segment(0xE1, b"Exif\0\0" + b"\xff\xda\0\2" * 300)
    assert read_image(jpeg[:2] + thumbnail + jpeg[2:] + progressive(MAX_SCANS + 50)).size == (48, 40)
    assert read_image(progressive(MAX_SCANS)).size == (48, 40)


# A decoder's failure of any kind is an ImageError


def test_an_assertion_of_a_decoder_is_the_files_error() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 3, 0, 0, 0))
    data = (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress((b"\0" + b"\xff" * 8) * 8))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="damaged"):
        read_image(data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_mutated_images_raise_nothing_else(fmt: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    several: dict[str, Any] = (
        {"save_all": True, "append_images": [picture()]} if fmt in ("PNG", "GIF", "WEBP") else {}
    )
    some = {"JPEG": {"progressive": True}, "TIFF": {"compression": "tiff_lzw"}, "WEBP": {"lossless": True}}
    sound = [
        encoded(picture(), fmt, exif=exif),
        encoded(picture().quantize(16).convert("RGB"), fmt, **several, **some.get(fmt, {})),
    ]
    if fmt in ("PNG", "GIF", "BMP", "TIFF"):
        sound.append(encoded(picture().quantize(16), fmt))
    dice = random.Random(0)
    for _ in range(250):
        data = bytearray(dice.choice(sound))
        for _ in range(dice.choice((1, 2, 8))):
            at, what = dice.randrange(min(len(data), dice.choice((60, 4000)))), dice.random()
            if what < 0.7:
                data[at] = dice.choice((dice.randrange(256), 0, 255, 127))
            elif what < 0.85:
                del data[at : at + dice.randrange(1, 8)]
            else:
                data[at:at] = dice.randbytes(dice.randrange(1, 8))
        with contextlib.suppress(ImageError):
            assert read_image(bytes(data), max_pixels=10**6).mode == "RGB"
