"""Class weights: every class counts alike over the rows of an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from safevlm.labelled import LabelledRow
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED


class ClassWeights(TypedDict):
    """Weights of the levels and of the categories, each (classes,) float32."""

    level: Tensor
    category: Tensor


def balanced_weights(rows: Sequence[tuple[LabelledRow, float]], taxonomy: Taxonomy) -> ClassWeights:
    """Weights with which every level and every category counts alike.

    Args:
        rows: every training row, and how many times an epoch has it; the head does not see rows without an image.
        taxonomy: of the labels.
    """
    seen = [(row, times) for row, times in rows if row.image is not None]
    return {
        "level": class_weights(((row.level, times) for row, times in seen), len(taxonomy.levels)),
        "category": class_weights(((row.category, times) for row, times in seen), len(taxonomy.categories)),
    }


def class_weights(labels: Iterable[tuple[int, float]], classes: int) -> Tensor:
    """n / (classes that have rows x rows of the class), (classes,) float32; 0 for a class without rows.

    Args:
        labels: of each row the class, -100 where unlabelled, and how many times an epoch has the row.
        classes: how many there are.
    """
    counts = torch.zeros(classes, dtype=torch.float64)
    for label, times in labels:
        if label != IGNORED:
            counts[label] += times
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.where(present, 1.0)), 0.0).float()
