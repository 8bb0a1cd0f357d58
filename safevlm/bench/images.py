"""Synthetic images to measure with: shapes without noise, of a common size, the same for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (640, 480)
"""(width, height) in pixels, of many photographs in data sets (COCO's most frequent)."""
DISTINCT = 32
MARKS = 300
QUALITY = 90


def make_image(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A shaded ground with a few hundred shapes of all sizes on it, RGB."""
    rng = random.Random(seed)
    bands = [Image.linear_gradient("L").rotate(90 * rng.randrange(4)).resize(size) for _ in range(3)]
    image = Image.merge("RGB", bands)
    pen = ImageDraw.Draw(image)
    for _ in range(MARKS):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        reach = max(2, round(min(size) * 0.3 * rng.random() ** 3))
        box = (x - reach, y - reach, x + reach, y + round(reach * rng.uniform(0.3, 1)))
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        match rng.randrange(4):
            case 0:
                pen.ellipse(box, fill=colour)
            case 1:
                pen.rectangle(box, fill=colour, outline=colour[::-1])
            case 2:
                pen.line((box[0], box[3], box[2], box[1]), fill=colour, width=1 + reach // 8)
            case _:
                pen.text((box[0], box[1]), f"{colour[0]:08b}", fill=colour)
    return image


def make_images(count: int) -> list[Image.Image]:
    """`count` images, of which `DISTINCT` are different."""
    made = [make_image(seed) for seed in range(min(count, DISTINCT))]
    return [made[number % DISTINCT] for number in range(count)]


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Write images as JPEG files into a new folder; no two files have the same bytes.

    Returns:
        The paths of the files, in order.
    """
    folder.mkdir(parents=True)
    paths = []
    for number, image in enumerate(make_images(count)):
        path = folder / f"{number:05d}.jpg"
        image.save(path, quality=QUALITY, comment=f"{number}".encode())
        paths.append(path)
    return paths
