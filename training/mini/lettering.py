"""Lettering: fonts that need no font files, one of them kept for the test split."""

from __future__ import annotations

import random
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

FONTS = {"train": ("aileron", "bitmap"), "tune": ("aileron", "bitmap"), "test": ("dots",)}
"""Font families of each split: Pillow's outline font, its bitmap font, and an own 5 x 7 dot matrix."""

_GLYPHS = {
    "A": "0e11111f111111", "B": "1e11111e11111e", "C": "0e11101010110e", "D": "1e11111111111e",
    "E": "1f10101e10101f", "F": "1f10101e101010", "G": "0e11101713110f", "H": "1111111f111111",
    "I": "0e04040404040e", "J": "0702020202120c", "K": "11121418141211", "L": "1010101010101f",
    "M": "111b1515111111", "N": "11191513111111", "O": "0e11111111110e", "P": "1e11111e101010",
    "Q": "0e11111115120d", "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404",
    "U": "1111111111110e", "V": "11111111110a04", "W": "1111111515150a", "X": "11110a040a1111",
    "Y": "11110a04040404", "Z": "1f01020408101f",
}  # fmt: skip


def word_mask(word: str, font: str) -> Image.Image:
    """A word in capitals as an L image (255 = ink), cropped to its ink.

    The outline font is 96 px high, the bitmap font 8 times enlarged, a dot 12 px wide.
    """
    return _word_mask(word, font).copy()


@lru_cache(maxsize=512)
def _word_mask(word: str, font: str) -> Image.Image:
    if font == "dots":
        return _dots(word)
    face = ImageFont.load_default_imagefont() if font == "bitmap" else ImageFont.load_default(96)
    left, top, right, bottom = face.getbbox(word)
    mask = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4), 0)
    ImageDraw.Draw(mask).text((2 - left, 2 - top), word, fill=255, font=face)
    mask = mask.crop(mask.getbbox())
    if font == "bitmap":
        mask = mask.resize((mask.width * 8, mask.height * 8), Image.Resampling.NEAREST)
    return mask


def _dots(word: str) -> Image.Image:
    cell = 12
    mask = Image.new("L", (len(word) * 6 * cell - cell, 7 * cell), 0)
    draw = ImageDraw.Draw(mask)
    for i, letter in enumerate(word):
        rows = bytes.fromhex(_GLYPHS[letter])
        for y, bits in enumerate(rows):
            for x in range(5):
                if bits >> (4 - x) & 1:
                    x0, y0 = (i * 6 + x) * cell, y * cell
                    draw.rectangle((x0, y0, x0 + cell - 1, y0 + cell - 1), fill=255)
    return mask


def choose_font(rng: random.Random, split: str) -> str:
    """One of the split's font families."""
    return rng.choice(FONTS[split])
