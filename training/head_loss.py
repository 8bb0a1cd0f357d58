"""The loss of the head on a batch."""

from __future__ import annotations

from torch import Tensor

from safevlm.modules import safety_loss
from safevlm.types import IGNORED
from safevlm.viewing import ViewOutput

from .balance import ClassWeights


def head_loss(
    output: ViewOutput, levels: Tensor, categories: Tensor, rows: list[int], weights: ClassWeights | None
) -> dict[str, Tensor]:
    """CE_level and CE_category: sums over labelled rows, divided by all rows of the batch.

    Dividing by the batch's size (and not by its labelled rows) makes the mean of the gradients of
    eight batches of one the gradient of one batch of eight.

    Args:
        output: of the head, for some rows of the batch.
        levels, categories: (B,) int64 of all rows, -100 where unlabelled, on the head's device.
        rows: the rows that the output is of.
        weights: of the classes; None: each row counts alike.
    """
    own_levels, own_categories = levels[rows], categories[rows]
    parts = safety_loss(
        *output.logits(),
        own_levels,
        own_categories,
        level_weights=None if weights is None else weights["level"].to(levels.device),
        category_weights=None if weights is None else weights["category"].to(levels.device),
    )
    return {
        "level": parts.level * ((own_levels != IGNORED).sum() / len(levels)),
        "category": parts.category * ((own_categories != IGNORED).sum() / len(levels)),
    }
