"""Features of photographs and emoji: each as it is, and in augmented views."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from .augment import augment
from .features import Features, open_features
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


def open_views(
    cache: Path, name: str, pictures: Photographs, tower: nn.Module, *, views: int, dtype: torch.dtype
) -> list[Features]:
    """Features of every picture in `views` views, from the folder `cache` or computed into it."""
    return [
        open_features(
            cache / f"{name}-{number}.npy",
            tower,
            count=len(pictures),
            draw=View(pictures, number),
            dtype=dtype,
        )
        for number in range(views)
    ]
