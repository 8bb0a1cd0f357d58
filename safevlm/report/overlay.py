"""An image with the head's attention drawn over it."""

from __future__ import annotations

import numpy as np
from PIL import Image

ANCHORS = (
    (0, 0, 8),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)
"""sRGB colours at equal steps from 0 to 1, after matplotlib's inferno (CC0): lightness rises evenly."""


def overlay(image: Image.Image, heatmap: np.ndarray, *, opacity: float = 0.5) -> Image.Image:
    """Blend a heatmap over an image, from dark violet (0) to pale yellow (1).

    Args:
        image: any size and mode; not changed.
        heatmap: (h, w) in [0, 1], any grid; enlarged to the image's size (bicubic). Values
            outside are clipped, NaN counts as 0.
        opacity: of the heatmap, in [0, 1].

    Returns:
        An RGB image of the image's size.

    Raises:
        ValueError: the heatmap is not two-dimensional or is empty, or opacity is outside [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"overlay: opacity is {opacity}; it must be in [0, 1]")
    values = np.asarray(heatmap, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"overlay: the heatmap has the shape {values.shape}; it must be (h, w), not empty")
    values = np.nan_to_num(values, nan=0.0).clip(0, 1)
    enlarged = np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.BICUBIC))
    return Image.blend(image.convert("RGB"), Image.fromarray(colours(enlarged)), opacity)


def colours(values: np.ndarray) -> np.ndarray:
    """Values (h, w) in [0, 1], clipped -> uint8 (h, w, 3) RGB."""
    steps = np.linspace(0, 1, len(ANCHORS))
    channels = [np.interp(values, steps, channel) for channel in zip(*ANCHORS, strict=True)]
    stacked: np.ndarray = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return stacked
