"""What towers whose output is a grid (B, C, h, w) have in common, convolutional networks above all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..views import Grid
from .family import Family


class GridFamily(Family):
    """Reads the last hidden state (B, dim, h, w), position by position, row by row."""

    one_length = True
    folds_norms = True

    def features(self, output: Any, *, layer: int | None, drops_class_token: bool) -> Tensor:
        """(B, dim, h, w) -> (B, h * w, dim)."""
        read: Tensor = output.last_hidden_state
        return read.flatten(2).transpose(1, 2)

    def output_of(
        self,
        features: Sequence[Tensor],
        *,
        layers: Sequence[int | None],
        depth: int | None,
        drops_class_token: bool,
        grid: Grid | None,
    ) -> Any:
        """(B, h * w, dim) -> an output whose last hidden state is (B, dim, h, w)."""
        assert grid is not None  # no such tower packs images
        (values,) = features
        return BaseModelOutputWithPooling(last_hidden_state=values.transpose(1, 2).unflatten(2, grid))

    def grid(self, pixels: Tensor, vision_config: Any, output: Any = None) -> Grid | None:
        """(h, w) of the last hidden state: paddings decide it, so the pixels do not tell."""
        if output is None:
            return None
        height, width = output.last_hidden_state.shape[-2:]
        return height, width
