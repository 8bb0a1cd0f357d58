"""Arrays of pixels -> images."""

from __future__ import annotations

import numpy as np
from PIL import Image


def image_of(array: np.ndarray) -> Image.Image:
    """An array (H, W, 3) of uint8, RGB -> an image.

    Raises:
        TypeError: another dtype.
        ValueError: another shape, or one that may be (3, H, W) as well.
    """
    if array.dtype != np.uint8:
        raise TypeError(
            f"an array of an image is uint8, 0..255; got {array.dtype}: scale floats in [0, 1] by 255, round and cast them"
        )
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"an array of an image has the shape (H, W, 3), RGB; got {array.shape}: transpose (3, H, W), repeat a grey "
            "channel, and give a batch as a list, list(batch)"
        )
    if array.shape[0] == 3:
        raise ValueError(f"an array of shape {array.shape} may be (H, W, 3) or (3, H, W); give a PIL image")
    return Image.fromarray(np.ascontiguousarray(array))
