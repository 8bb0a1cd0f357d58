"""The training loss: L_LM + 10 * (CE_level + CE_category)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class LossParts(NamedTuple):
    """The two cross entropies of the head, float32 scalars >= 0 in nats."""

    level: Tensor
    category: Tensor

    @property
    def total(self) -> Tensor:
        """CE_level + CE_category: all that the head, set A and the projector learn from."""
        return self.level + self.category


def safety_loss(
    level_logits: Tensor,
    category_logits: Tensor,
    levels: Tensor,
    categories: Tensor,
    *,
    level_weights: Tensor | None = None,
    category_weights: Tensor | None = None,
    ignore_index: int = -100,
) -> LossParts:
    """Cross entropy of both classifiers, each the mean over its labelled items.

    Item i counts weights[label_i], and the sum is divided by the number of labelled items, not by
    the sum of their weights as F.cross_entropy does: dividing by the weights would cancel them in
    a batch of one and make gradient accumulation depend on the batch size. Without class weights
    the two agree. A batch without any label gives exactly 0, with zero gradients.

    Args:
        level_logits: (B, num_levels), any float dtype; computed in float32.
        category_logits: (B, num_categories), any float dtype; computed in float32.
        levels: (B,) int64 in [0, num_levels), or ignore_index.
        categories: (B,) int64 in [0, num_categories), or ignore_index.
        level_weights: (num_levels,) float32 >= 0; None means 1 each.
        category_weights: (num_categories,) float32 >= 0; None means 1 each.
        ignore_index: label of items to leave out; -100 as in PyTorch and transformers.
    """
    return LossParts(
        _cross_entropy(level_logits, levels, level_weights, ignore_index),
        _cross_entropy(category_logits, categories, category_weights, ignore_index),
    )


def answer_losses(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Cross entropy of each row's answer: the mean over that row's labelled tokens.

    Every answer counts the same whatever its length, so that the mean over rows does not depend on
    how a batch is cut (gradient accumulation, several processes).

    Args:
        logits: (B, L, vocabulary), any float dtype; computed in float32 at labelled positions alone.
        labels: (B, L) int64, ignore_index at prompts and padding; position i is predicted at i - 1.

    Returns:
        (B,) float32 in nats per token; 0 for a row without labels.
    """
    targets = labels[:, 1:].to(logits.device)
    labelled = targets != ignore_index
    losses = F.cross_entropy(logits[:, :-1][labelled].float(), targets[labelled], reduction="none")
    sums = losses.new_zeros(len(labels)).index_add(0, labelled.nonzero()[:, 0], losses)
    return sums / labelled.sum(dim=1).clamp(min=1)


def total_loss(lm_loss: Tensor, safety_loss: LossParts, *, weight: float = 10.0) -> Tensor:
    """L_LM + weight * (CE_level + CE_category), a scalar.

    Args:
        lm_loss: scalar, the language model's loss in nats per token.
        safety_loss: from `safety_loss`.
        weight: finite, >= 0; 10 in the authors' code (the paper does not print it).
    """
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(f"total_loss: weight must be finite and >= 0, got {weight}; the authors use 10.")
    return lm_loss + weight * safety_loss.total


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, ignore_index: int) -> Tensor:
    total = F.cross_entropy(
        logits.float(), labels, weight=weights, ignore_index=ignore_index, reduction="sum"
    )
    return total / (labels != ignore_index).sum().clamp(min=1)
