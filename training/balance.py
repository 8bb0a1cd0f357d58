"""Class weights: every class counts alike over the rows that an epoch draws."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from safevlm.types import IGNORED


def class_weights(labels: Iterable[tuple[int, float]], classes: int) -> Tensor:
    """n / (classes that have rows x rows of the class), (classes,) float32; 0 for a class without rows.

    Args:
        labels: of each row the class, -100 where unlabelled, and how often an epoch draws the row.
        classes: how many there are.
    """
    drawn = torch.zeros(classes, dtype=torch.float64)
    for label, times in labels:
        if label != IGNORED:
            drawn[label] += times
    present = drawn > 0
    return torch.where(present, drawn.sum() / (present.sum() * drawn.where(present, 1.0)), 0.0).float()
