"""Boards: what written words stand on, and the words laid out in lines on it."""

from __future__ import annotations

import itertools
import random
import re

from PIL import Image, ImageDraw

from .brush import Colour
from .lettering import Style, choose_style, line_mask

BOARDS = {
    "train": ("none", "plain", "striped", "framed"),
    "tune": ("none", "plain", "striped", "framed"),
    "test": ("none", "rounded", "ruled"),
}
"""Boards of each split; the test split has its own."""
LETTER_HEIGHT = 0.075
"""Least height of a letter as a share of the image's edge: 17 pixels of 224, which an OCR reader can read."""


def write(canvas: Image.Image, text: str, colour: Colour, *, rng: random.Random, split: str) -> None:
    """Write words on a board drawn onto `canvas` (RGB, square), in dark or light ink, whichever stands out."""
    edge = canvas.width
    board = rng.choice(BOARDS[split])
    style = choose_style(rng, split)
    lines, height = _layout(text, style, rng=rng, wide=0.88 * edge, high=0.84 * edge)
    masks = [line_mask(line, style) for line in lines]
    masks = [mask.resize((max(1, mask.width * height // mask.height), height)) for mask in masks]
    leading = int(height * rng.uniform(1.25, 1.5)) if len(masks) > 1 else height
    leading = min(leading, int(0.9 * edge - height) // max(1, len(masks) - 1))
    block = (max(mask.width for mask in masks), leading * (len(masks) - 1) + height)
    left, top = ((edge - size) // 2 + int((edge - size) * rng.uniform(-0.3, 0.3)) for size in block)
    layer = Image.new("L", canvas.size, 0)
    centred = rng.random() < 0.6
    for i, mask in enumerate(masks):
        layer.paste(mask, (left + (block[0] - mask.width) // 2 * centred, top + leading * i))
    pad = int(0.05 * edge)
    dark_ink = _board(
        canvas, board, colour, (left - pad, top - pad, left + block[0] + pad, top + block[1] + pad), rng
    )
    ink = _ink(colour, dark=dark_ink)
    turn = rng.uniform(-2, 2) if split != "test" else rng.choice((-1, 1)) * rng.uniform(2, 4)
    if board == "none":
        layer = layer.rotate(turn, resample=Image.Resampling.BILINEAR)
    canvas.paste(Image.new("RGB", canvas.size, ink), (0, 0), layer)


def _layout(
    text: str, style: Style, *, rng: random.Random, wide: float, high: float
) -> tuple[list[str], int]:
    """Lines and the height of their letters: one of the divisions that leave the letters high enough."""
    words = re.findall(r"(?:AN? )?\S+", text)  # an article stands with its noun
    sizes = []
    for count in range(1, min(4, len(words)) + 1):
        fits = []
        for cuts in itertools.combinations(range(1, len(words)), count - 1):
            lines = [" ".join(words[i:j]) for i, j in itertools.pairwise((0, *cuts, len(words)))]
            longest = line_mask(max(lines, key=len), style)
            fits.append((min(wide * longest.height / longest.width, high / (1.3 * count)), lines))
        sizes.append(max(fits))
    best = max(size for size, _ in sizes)
    least = LETTER_HEIGHT * wide / 0.88
    size, lines = rng.choice([row for row in sizes if row[0] >= min(best, 1.4 * least)])
    return lines, int(max(min(size, least), size * rng.uniform(0.75, 1.0)))


def _ink(colour: Colour, *, dark: bool) -> Colour:
    red, green, blue = (int(part * 0.4) if dark else 255 - int((255 - part) * 0.2) for part in colour)
    return red, green, blue


def _board(
    canvas: Image.Image, board: str, colour: Colour, box: tuple[int, int, int, int], rng: random.Random
) -> bool:
    """Draw the board; returns whether dark ink stands out on it."""
    draw = ImageDraw.Draw(canvas)
    dark_ink = rng.random() < 0.5
    red, green, blue = (255 - int((255 - c) * 0.25) if dark_ink else int(c * 0.4) for c in colour)
    fill, ink, width = (red, green, blue), _ink(colour, dark=dark_ink), max(2, canvas.width // 75)
    if board == "none":
        return sum(canvas.resize((1, 1)).tobytes()) / 3 > 127
    if board == "ruled":
        draw.rectangle((0, box[1], canvas.width, box[3]), fill=fill)
        for y in (box[1], box[3]):
            draw.line((0, y, canvas.width, y), fill=ink, width=width)
    elif board == "rounded":
        draw.rounded_rectangle(box, radius=canvas.width // 20, fill=fill)
    else:
        draw.rectangle(box, fill=fill)
    if board == "framed":
        draw.rectangle(box, outline=ink, width=width)
    if board == "striped":
        red, green, blue = (max(0, min(255, c + (-14 if dark_ink else 14))) for c in fill)
        for y in range(box[1], box[3], 6 * width):
            draw.rectangle((box[0], y, box[2], min(box[3], y + 3 * width)), fill=(red, green, blue))
    return dark_ink
