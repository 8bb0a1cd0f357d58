"""Backgrounds: plain, gradient, stripes, checker, noise; other ones for the test split."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from .brush import Colour

TINTS: dict[str, dict[str, Colour]] = {
    "train": {
        "white": (226, 227, 230), "light blue": (185, 210, 240), "light green": (195, 230, 195),
        "beige": (230, 215, 185), "light grey": (200, 203, 208), "pale pink": (245, 215, 222),
    },
    "test": {
        "white": (234, 232, 226), "light blue": (160, 200, 232), "light green": (172, 222, 178),
        "beige": (240, 226, 200), "light grey": (186, 188, 190), "pale pink": (250, 200, 210),
    },
}  # fmt: skip
"""Background colours of a split, by name; the test split has other shades."""
PATTERNS = {
    "train": ("plain", "gradient", "stripes", "checker", "noise"),
    "tune": ("plain", "gradient", "stripes", "checker", "noise"),
    "test": ("plain", "gradient", "dots", "diamonds", "noise"),
}
"""Patterns of a split; dots and diamonds are the test split's alone."""


def choose_background(
    rng: random.Random, split: str, size: int, *, plain: bool = False
) -> tuple[str, Image.Image]:
    """A background's colour name and its RGB image of `size` x `size` pixels."""
    tints = TINTS["test" if split == "test" else "train"]
    name = rng.choice(sorted(tints))
    colour = tints[name]
    pattern = rng.choice(("plain", "gradient")) if plain else rng.choice(PATTERNS[split])
    return name, _fill(rng, pattern, size, colour)


def _fill(rng: random.Random, pattern: str, size: int, colour: Colour) -> Image.Image:
    image = Image.new("RGB", (size, size), colour)
    if pattern == "plain":
        return image
    by = rng.choice((-1, 1)) * rng.randint(14, 34)
    red, green, blue = (max(0, min(255, part + by)) for part in colour)
    other = Image.new("RGB", (size, size), (red, green, blue))
    image.paste(other, (0, 0), _mask(rng, pattern, size))
    return image


def _mask(rng: random.Random, pattern: str, size: int) -> Image.Image:
    if pattern == "gradient":
        return Image.linear_gradient("L").resize((size, size)).rotate(rng.choice((0, 90, 180, 270)))
    if pattern == "noise":
        cells = rng.randint(16, 32)
        noise = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
        return noise.resize((size, size), Image.Resampling.BILINEAR)
    mask = Image.new("L", (size, size), 0)
    draw, step = ImageDraw.Draw(mask), size // rng.randint(5, 9)
    for i in range(0, size + step, step):
        if pattern == "stripes":
            draw.rectangle((0, i, size, i + step // 2), fill=255)
            continue
        for j in range(0, size + step, step):
            if pattern == "checker" and (i // step + j // step) % 2:
                draw.rectangle((i, j, i + step - 1, j + step - 1), fill=255)
            elif pattern == "dots":
                draw.ellipse((i, j, i + step // 2, j + step // 2), fill=255)
            elif pattern == "diamonds":
                h = step // 2
                draw.polygon([(i + h, j), (i + step, j + h), (i + h, j + step), (i, j + h)], fill=255)
    return mask.rotate(90) if pattern == "stripes" and rng.random() < 0.5 else mask
