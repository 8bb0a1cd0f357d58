"""Dropout of whole feature channels: what cached features have in place of augmented images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from safevlm.backbone import Views

from .hash_random import hash_seed


def kept_channels(rows: list[int], channels: int, probability: float, *key: object) -> Tensor:
    """(len(rows), channels) float32: 0 for a dropped channel, 1 / (1 - probability) for the others.

    Args:
        rows: numbers of rows; each has its own channels, whatever batch it is in.
        channels: of the features.
        probability: that a channel is dropped, in [0, 1).
        key: what else the choice depends on, such as the epoch.
    """
    made = [torch.Generator().manual_seed(hash_seed(*key, "features", row)) for row in rows]
    kept = torch.stack([torch.rand(channels, generator=generator) >= probability for generator in made])
    return kept / (1 - probability)


def drop_channels(views: Views, kept: Tensor) -> Views:
    """Multiply every patch of an image by its row of `kept` (images, channels)."""
    owners = torch.tensor(views.owners)
    groups = [
        replace(group, features=group.features * kept[owners[list(group.numbers)], None].to(group.features))
        for group in views.groups
    ]
    return replace(views, groups=tuple(groups))
