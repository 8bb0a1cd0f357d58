"""What makes a tower's inputs of images, without the tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from .default_dtype import float32_by_default
from .families import Family, TowerInputs
from .families.view_box import scaled_side


@dataclass(frozen=True)
class Preprocessor:
    """A tower's preprocessing; it holds no weights. Picklable.

    Args:
        family: how images reach the tower.
        image_processor: makes pixel values of images.
        dtype: of the inputs' floating-point tensors.
    """

    family: Family
    image_processor: Any
    dtype: torch.dtype = torch.float32

    @property
    def scaled_side(self) -> int | None:
        """Pixels on the side that an image of any size is scaled to; None where that depends on the image."""
        return scaled_side(self.image_processor) if self.family.scales_whole else None

    def preprocess(self, images: Sequence[Image.Image]) -> TowerInputs:
        """RGB images -> the tower's inputs, on the CPU; any thread may call it."""
        with float32_by_default():
            inputs = self.family.prepare(images, self.image_processor)
        tensors = {
            name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in inputs.tensors.items()
        }
        return replace(inputs, tensors=tensors)
