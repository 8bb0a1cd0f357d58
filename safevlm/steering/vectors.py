"""One vector for each of some decoder layers, which know their model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from safevlm.backbone import Backbone, same_weights
from safevlm.errors import CheckpointError


@dataclass(frozen=True, eq=False)
class LayerVectors:
    """Vectors of one LLM.

    Args:
        values: index in `Backbone.decoder_layers` -> (d,) float32, finite.
        fingerprint: `Backbone.language_fingerprint` of that LLM.

    Raises:
        ValueError: no layers, or a value that is not as stated.
    """

    values: Mapping[int, Tensor]
    fingerprint: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("vectors of no layers; give at least one layer")
        for layer, vector in self.values.items():
            if vector.ndim != 1 or vector.dtype != torch.float32 or not bool(vector.isfinite().all()):
                raise ValueError(
                    f"the vector of layer {layer} is {tuple(vector.shape)} {vector.dtype}, or not finite; one of (d,) "
                    "finite float32 numbers is needed"
                )

    def check_fits(self, backbone: Backbone) -> None:
        """Raise CheckpointError unless the vectors are of this LLM, in whatever dtype."""
        if not same_weights(self.fingerprint, backbone.language_fingerprint):
            raise CheckpointError(
                f"the steering vectors are of another LLM than {backbone.name}'s; fit them on this one"
            )
