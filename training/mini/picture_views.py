"""Views of photographs and emoji: each as it is, and augmented."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from .augment import augment
from .photographs import Photographs
from .tower import SIZE


@dataclass(frozen=True)
class View:
    """View `number` of pictures: 0 is the picture as the processor crops it, the others are augmented."""

    pictures: Photographs
    number: int

    def __call__(self, index: int) -> Image.Image:
        """RGB of 224 x 224 pixels; the same for the same picture and number."""
        image = self.pictures.image(index)
        if self.number:
            return augment(image, random.Random(f"{self.number}:{index}"), size=SIZE)
        return centre(image)


def centre(image: Image.Image, size: int = SIZE) -> Image.Image:
    """The shorter edge scaled to `size`, then the square in the middle, as CLIPImageProcessor crops."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize(
        (max(size, int(width * scale)), max(size, int(height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
