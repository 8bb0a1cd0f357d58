"""Random changes of an image that keep its label, and hide from which camera or data set it comes."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageEnhance, ImageFilter

_RESIZE = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BOX,
)


def augment(
    image: Image.Image, rng: random.Random, *, size: int, smallest: float = 0.6, flip: bool = True
) -> Image.Image:
    """A changed copy, RGB of `size` x `size` pixels: crop, scale, JPEG, mirror and colour, in this order.

    Args:
        image: RGB.
        rng: what is drawn from.
        size: edge of the result in pixels.
        smallest: least share of the image's edges that the crop keeps, in (0, 1].
        flip: whether a mirror keeps the label.
    """
    image = _crop(image, rng, smallest)
    if rng.random() < 0.6:  # photographs of 64 pixels and of 288 must look alike
        edge = round(48 * (size / 48) ** rng.random())
        image = image.resize((edge, edge), rng.choice(_RESIZE))
    if rng.random() < 0.6:
        image = _compress(image, rng.randint(30, 95))
    image = image.resize((size, size), rng.choice(_RESIZE[:3]))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.0)))
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _colour(image, rng)


def _crop(image: Image.Image, rng: random.Random, smallest: float) -> Image.Image:
    width, height = image.size
    edge, stretch = rng.uniform(smallest, 1), rng.uniform(0.85, 1.18)
    short = min(width, height)
    wide = min(width, max(1, round((width + short) / 2 * edge * stretch)))
    high = min(height, max(1, round((height + short) / 2 * edge / stretch)))
    left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
    return image.crop((left, top, left + wide, top + high))


def _compress(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _colour(image: Image.Image, rng: random.Random) -> Image.Image:
    if rng.random() < 0.05:
        return image.convert("L").convert("RGB")
    for change, spread in (
        (ImageEnhance.Brightness, 0.3),
        (ImageEnhance.Contrast, 0.3),
        (ImageEnhance.Color, 0.4),
    ):
        if rng.random() < 0.7:
            image = change(image).enhance(rng.uniform(1 - spread, 1 + spread))
    gains = [rng.uniform(0.9, 1.1) for _ in range(3)]
    return Image.merge(
        "RGB",
        [
            band.point(lambda value, gain=gain: value * gain)
            for band, gain in zip(image.split(), gains, strict=True)
        ],
    )
