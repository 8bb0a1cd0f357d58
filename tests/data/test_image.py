"""Every kind of picture and non-picture that `read_image` meets."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safevlm.data import image_size, prepared_pixels, read_image
from safevlm.data.image import MAX_RATIO
from safevlm.errors import ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def picture(width: int = 24, height: int = 16) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def corners() -> Image.Image:
    """2 x 1 blocks of 8 px: red, green above blue, white, so that every turn is told apart."""
    blocks = np.array([[RED, GREEN, GREEN], [BLUE, WHITE, WHITE]], dtype=np.uint8)
    return Image.fromarray(blocks.repeat(8, 0).repeat(8, 1))


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def png(width: int, height: int, *, data: bytes = b"", colour: int = 0, depth: int = 1) -> bytes:
    """A PNG by hand, with a header that says what the caller likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data, 1))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_read_exactly(fmt: str) -> None:
    assert np.array_equal(pixels(read_image(encoded(picture(), fmt))), pixels(picture()))


def test_lossless_webp_and_lossy_jpeg() -> None:
    assert np.array_equal(pixels(read_image(encoded(picture(), "WEBP", lossless=True))), pixels(picture()))
    flat = Image.new("RGB", (32, 32), (200, 40, 90))
    assert np.abs(pixels(read_image(encoded(flat, "JPEG"))) - [200, 40, 90]).max() <= 3


def test_sources_path_str_bytes_and_pil(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    opened = Image.open(path)
    for source in (path, str(path), path.read_bytes(), opened, picture()):
        assert np.array_equal(pixels(read_image(source)), pixels(picture()))


def test_a_pil_source_is_not_changed_and_not_shared() -> None:
    source = picture()
    result = read_image(source)
    result.paste(RED, (0, 0, 24, 16))
    assert np.array_equal(pixels(source), pixels(picture()))


def test_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="fromarray"):
        read_image(np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]


# Colour and depth, against what the pixels ought to be


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta + yellow = red
    assert np.abs(pixels(read_image(encoded(cmyk, "TIFF"))) - RED).max() == 0
    assert np.abs(pixels(read_image(encoded(cmyk, "JPEG", quality=95))) - RED).max() <= 4


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_grey_is_scaled_not_clipped(mode: str) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    source = Image.fromarray(ramp)
    if mode == "I;16B":
        source = Image.frombytes("I;16B", (8, 8), ramp.astype(">u2").tobytes())
    expected = np.rint(ramp.astype(float) * 255 / 65535)
    assert np.array_equal(pixels(read_image(source))[..., 0], expected)
    assert np.array_equal(pixels(read_image(encoded(source, "TIFF")))[..., 2], expected)


def test_16_bit_png() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = pixels(read_image(encoded(Image.fromarray(ramp), "PNG")))
    assert np.array_equal(found, np.rint(ramp / 257.0)[..., None].repeat(3, -1))


def test_16_bit_rgb_png() -> None:
    row = b"\0" + struct.pack(">HHH", 65535, 32896, 0)
    assert pixels(read_image(png(1, 1, data=row, colour=2, depth=16))).tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize(("top", "expected"), [(255, 255), (65535, 255), (2**31 - 1, 255)])
def test_mode_i_takes_the_smallest_range_that_fits(top: int, expected: int) -> None:
    found = pixels(read_image(Image.fromarray(np.array([[0, top // 2, top]], dtype=np.int32))))[0, :, 0]
    assert found[0] == 0
    assert found[2] == expected
    assert abs(found[1] - 127.5) <= 1


def test_mode_f() -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1, np.nan]], dtype=np.float32))
    assert pixels(read_image(unit))[0, :, 0].tolist() == [0, 128, 255, 0]
    signed = Image.fromarray(np.array([[-3, 0, 3]], dtype=np.float32))
    assert pixels(read_image(signed))[0, :, 0].tolist() == [0, 128, 255]


def test_one_bit_grey_and_palette() -> None:
    assert set(np.unique(pixels(read_image(encoded(Image.new("1", (8, 8), 1), "PNG"))))) == {255}
    grey = Image.new("L", (4, 4), 77)
    assert set(np.unique(pixels(read_image(encoded(grey, "PNG"))))) == {77}
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([*GREEN, *BLUE])
    assert np.array_equal(pixels(read_image(encoded(palette, "PNG")))[0, 0], BLUE)


@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_transparent_palette_colour_lies_over_white(fmt: str) -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((3, 3), 1)
    found = pixels(read_image(encoded(palette, fmt, transparency=0)))
    assert found[0, 0].tolist() == list(WHITE)
    assert found[3, 3].tolist() == list(BLUE)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_half_transparency_is_blended_with_white(mode: str) -> None:
    colour = (100, 51) if mode == "LA" else (100, 100, 100, 51)
    found = pixels(read_image(encoded(Image.new(mode, (4, 4), colour), "PNG")))
    assert np.abs(found - (100 * 0.2 + 255 * 0.8)).max() <= 1


def test_transparent_grey_value_in_8_and_16_bits() -> None:
    for image, key in (
        (Image.new("L", (2, 2), 7), 7),
        (Image.fromarray(np.full((2, 2), 700, np.uint16)), 700),
    ):
        image.putpixel((0, 0), 0)
        found = pixels(read_image(encoded(image, "PNG", transparency=key)))
        assert found[1, 1].tolist() == list(WHITE)
        assert found[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(fmt: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(pixels(read_image(data))[4, 4], RED)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(fmt: str, orientation: int) -> None:
    # The inverse of what a viewer does for each value (EXIF 2.32, tag 274), in numpy.
    stored_from_upright: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(stored_from_upright[orientation](np.asarray(corners()))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(fmt, {})
    data = encoded(stored, fmt, exif=exif, **options)
    found = read_image(data)
    assert found.size == (24, 16)
    assert np.abs(pixels(found) - pixels(corners())).max() <= 12
    assert np.array_equal(pixels(read_image(found)), pixels(found))
    assert np.array_equal(pixels(read_image(Image.open(io.BytesIO(data)))), pixels(found))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_upright_image(fmt: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (60, 18)), fmt, exif=exif)
    (tmp_path / "a").write_bytes(data)
    assert image_size(data) == image_size(tmp_path / "a") == read_image(data).size


@pytest.mark.parametrize("data", [b"", b"words", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0"])
def test_what_has_no_size_is_an_error(data: bytes) -> None:
    with pytest.raises(ImageError, match="bytes"):
        image_size(data)


def test_damaged_exif_is_no_reason_to_refuse() -> None:
    found = read_image(encoded(picture(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    assert np.array_equal(pixels(found), pixels(picture()))


def test_one_pixel() -> None:
    assert pixels(read_image(encoded(Image.new("RGB", (1, 1), RED), "PNG"))).tolist() == [[list(RED)]]


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(picture(), "PNG"))
    assert np.array_equal(pixels(read_image(path)), pixels(picture()))


# What is refused, and what the message says


def refused(source: Any, *words: str, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_missing_directory_and_url(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", "none.png", "no such file", "check the path")
    refused(tmp_path, str(tmp_path), "is a directory", "scan it as a folder")
    refused("https://example.org/cat.png", "no such file", "download it first")
    refused("a\0b.png", "cannot be opened")
    refused(tmp_path / ("x" * 300), "cannot be opened")


def test_fifo_and_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "pipe.png", "not a regular file")
    refused("/dev/zero", "/dev/zero", "not a regular file")


def test_empty_and_not_an_image(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.jpg", tmp_path / "text.png"
    empty.touch()
    text.write_text("hello, I am no picture")
    refused(empty, "empty.jpg", "is empty", "again")
    refused(b"", "is empty")
    refused(text, "text.png", "not an image", "JPEG")


@pytest.mark.parametrize(
    "head", [b"%PDF-1.7", b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg xmlns=", b"\0\0\1\0", b"8BPS", b"P6 1 1 255 abc"]
)
def test_formats_outside_the_list_are_not_tried(head: bytes) -> None:
    refused(head + bytes(200), "not an image of a known format", "convert it")


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_truncated(fmt: str, share: float, tmp_path: Path) -> None:
    whole = encoded(picture(64, 64), fmt)
    path = tmp_path / "half.bin"
    path.write_bytes(whole[: max(3, int(len(whole) * share))])
    refused(path, "half.bin", "again" if path.stat().st_size > 12 else "")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_mutated_bytes_raise_nothing_else(fmt: str) -> None:
    whole = encoded(picture(), fmt)
    rng = np.random.default_rng(1)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(0, 256)
        with contextlib.suppress(ImageError):
            assert read_image(bytes(data), max_pixels=10**6).mode == "RGB"


@pytest.mark.parametrize("limit", [None, 10, 89_478_485, 10**12])
def test_bomb_is_refused_whatever_pillows_own_limit(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    rows = bytes(20_000 * 2_501)  # a filter byte and 20,000 bits each: a whole, valid picture
    data = png(20_000, 20_000, data=rows if limit is None else b"")
    refused(data, "20000 x 20000", "400,000,000", "decompression bomb", "max_pixels")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert read_image(encoded(picture(), "PNG")).size == (24, 16)


@pytest.mark.parametrize("size", [(1, MAX_RATIO), (MAX_RATIO * 7, 7)])
def test_the_thinnest_picture_that_passes(size: tuple[int, int]) -> None:
    assert read_image(Image.new("L", size)).size == size
    longer = (size[0] + (size[0] > 1), size[1] + (size[0] == 1))
    refused(Image.new("L", longer), "is thinner than 1 to")


def test_prepared_pixels_are_those_of_the_largest_that_a_processor_makes() -> None:
    for width, height in ((1, 50), (50, 1), (224, 224), (100, 300), (8000, 6000), (448, 448)):
        scale = 448 / min(width, height)
        scaled = round(width * scale) * round(height * scale)
        assert prepared_pixels(width, height) == max(width * height, scaled)
        assert prepared_pixels(width, height) <= max(width * height, MAX_RATIO * 448**2)


def test_size_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    refused(png(20_000, 20_000), "decompression bomb")


def test_max_pixels_is_the_largest_that_passes() -> None:
    assert read_image(picture(), max_pixels=24 * 16).size == (24, 16)
    refused(picture(), "384 pixels", max_pixels=24 * 16 - 1)
    refused(encoded(picture(), "GIF"), "384 pixels", max_pixels=24 * 16 - 1)


def test_tiff_tile_larger_than_the_picture() -> None:
    fields = [
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 1),
        (262, 1),
        (322, 20_000),
        (323, 20_000),
        (324, 8),
        (325, 8),
    ]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    refused(b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + body + bytes(4), "400,000,000")


def test_no_pixels() -> None:
    refused(Image.new("RGB", (0, 5)), "has no pixels")
    refused(png(0, 5), "bytes (")
