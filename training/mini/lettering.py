"""Lettering: fonts that need no font files and the styles they are written in, some of them for the test split alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .glyphs import STROKES

FONTS = {
    "train": ("outline", "pixels"),
    "tune": ("outline", "pixels"),
    "test": ("strokes", "round dots", "square dots"),
}
"""Font families of each split: Pillow's outline font and a coarse raster of it; an own stroke font, and dots along it."""
_HEIGHT = 96
_MARGIN = 16


@dataclass(frozen=True)
class Style:
    """How a line is written: font family, thickness of its lines (pixels at a letter height of about 70),
    letters as outlines only, shear (x per y), extra space between letters (pixels), soft edges."""

    font: str
    weight: int = 0
    hollow: bool = False
    slant: float = 0.0
    spacing: int = 0
    soft: bool = False


def choose_style(rng: random.Random, split: str) -> Style:
    """A style of the split; slanted and hollow letters are training's, and the test split has other fonts."""
    font = rng.choice(FONTS[split])
    if font == "outline":
        hollow = rng.random() < 0.2
        weight = rng.randint(3, 4) if hollow else rng.choice((0, 0, 1, 3, 5))
        slant = rng.uniform(0.1, 0.3) if rng.random() < 0.3 else 0.0
        return Style(font, weight, hollow, slant, rng.choice((0, 0, 4, 12)) + weight)
    if font == "strokes":
        return Style(font, rng.randint(7, 12), spacing=rng.randint(0, 6))
    return Style(font, soft=font == "pixels" and rng.random() < 0.5)


def line_mask(text: str, style: Style) -> Image.Image:
    """A line in capitals as an L image (255 = ink), as high as its letters and as wide as its ink.

    Raises:
        KeyError: a character that the font has no glyph for.
    """
    if style.font == "strokes":
        mask = _strokes(text, style)
    elif style.font.endswith("dots"):
        mask = _dots(text, style)
    elif style.font == "pixels":
        mask = _pixels(text, soft=style.soft)
    else:
        mask = _outline(text, style)
    if style.slant:
        shift = style.slant * mask.height
        size = (mask.width + int(shift), mask.height)
        mask = mask.transform(
            size, Image.Transform.AFFINE, (1, style.slant, -shift, 0, 1, 0), Image.Resampling.BILINEAR
        )
    left, _, right, _ = mask.getbbox() or (0, 0, mask.width, 0)
    return mask.crop((left, 0, right, mask.height))


def _outline(text: str, style: Style) -> Image.Image:
    face = ImageFont.load_default(_HEIGHT)
    advances = [face.getlength(letter) + style.spacing for letter in text]
    _, top, _, bottom = face.getbbox("H")
    mask = Image.new("L", (int(sum(advances)) + 2 * _MARGIN, int(bottom - top) + 2 * style.weight), 0)
    draw, x = ImageDraw.Draw(mask), float(_MARGIN)
    for letter, advance in zip(text, advances, strict=True):
        at = (x, style.weight - top)
        draw.text(at, letter, fill=255, font=face, stroke_width=style.weight)
        if style.hollow:
            draw.text(at, letter, fill=0, font=face)
        x += advance
    return mask


def _pixels(text: str, *, soft: bool) -> Image.Image:
    face = ImageFont.load_default(20)
    _, top, right, bottom = face.getbbox("H" + text)
    mask = Image.new("L", (int(right) + 2, int(bottom - top)), 0)
    ImageDraw.Draw(mask).text((1, -top), text, fill=255, font=face)
    mask = mask.point(lambda value: 255 * (value > 110))
    way = Image.Resampling.BICUBIC if soft else Image.Resampling.NEAREST
    return mask.resize((mask.width * 6, mask.height * 6), way)


def _strokes(text: str, style: Style, cell: int = 11) -> Image.Image:
    half = style.weight / 2
    step = 6 * cell + style.spacing
    mask = Image.new("L", (len(text) * step, 6 * cell + style.weight), 0)
    draw = ImageDraw.Draw(mask)
    for i, letter in enumerate(text):
        for line in STROKES[letter].split(","):
            points = [(i * step + half + int(x) * cell, half + int(y) * cell) for x, y in line.split()]
            draw.line(points, fill=255, width=style.weight)
            for x, y in points:
                draw.ellipse((x - half, y - half, x + half, y + half), fill=255)
    return mask


def _dots(text: str, style: Style) -> Image.Image:
    """Dots on a grid of which a letter is 9 by 13, or 13 by 19 where it is written finely."""
    cells = 2 if style.font == "round dots" else 3
    grid = _strokes(text, Style("strokes", 1), cells)
    pitch = 18 // cells
    mask = Image.new("L", (grid.width * pitch, grid.height * pitch), 0)
    draw = ImageDraw.Draw(mask)
    shape = draw.ellipse if style.font == "round dots" else draw.rectangle
    for i, value in enumerate(grid.tobytes()):
        if value:
            x, y = i % grid.width * pitch, i // grid.width * pitch
            shape((x - 2, y - 2, x + pitch + 1, y + pitch + 1), fill=255)
    return mask
