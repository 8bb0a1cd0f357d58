"""Augmentation of batches of images, vectorised on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float32 (n, 3, h, w), as CLIPImageProcessor normalises."""
    scale = torch.tensor([1 / (255 * s) for s in CLIP_STD])
    shift = torch.tensor([m / s for m, s in zip(CLIP_MEAN, CLIP_STD, strict=True)])
    return (pixels.float() * scale - shift).permute(0, 3, 1, 2).contiguous()


def augment(images: Tensor, *, smallest: Tensor, flip: Tensor, generator: torch.Generator) -> Tensor:
    """Random resized crops, mirrors and mild colour changes, one draw per image.

    `images` float32 (n, 3, h, w), normalised; `smallest` (n,) the least share of an edge that a
    crop keeps, in (0, 1]; `flip` bool (n,) whether the image may be mirrored.
    """
    n = len(images)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    edge = smallest + (1 - smallest) * uniform(n)
    stretch = torch.exp((uniform(n) - 0.5) * 0.3)
    width, height = (edge * stretch).clamp(max=1), (edge / stretch).clamp(max=1)
    sign = torch.where(flip & (uniform(n) < 0.5), -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * sign, height
    theta[:, 0, 2] = (2 * uniform(n) - 1) * (1 - width)
    theta[:, 1, 2] = (2 * uniform(n) - 1) * (1 - height)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    images = grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    contrast = 1 + (uniform(n, 1, 1, 1) - 0.5) * 0.4
    tint = (uniform(n, 3, 1, 1) - 0.5) * 0.2 + (uniform(n, 1, 1, 1) - 0.5) * 0.5
    return images * contrast + tint
