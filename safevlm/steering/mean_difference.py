"""Difference of means with a gate: what tells harmful prompts apart is added where a prompt looks harmful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safevlm.backbone import Backbone

from .batch import Batch
from .hooks import Change, Method, Plan, Step
from .layers import Layers, pick_layers
from .states import last_states
from .vectors import LayerVectors


@dataclass(frozen=True, eq=False)
class MeanDifference(Method):
    """Adds the difference of means where the gate fires (InferAligner, arXiv 2401.11206)::

        theta = mean h(harmful) - mean h(harmless)      last tokens, text alone
        g     = 1 if h(Q) . theta > threshold else 0    h(Q): the prompt's last token in the pass that is steered
        h*    = h + strength * g * theta

    The gate is read in the same pass, so the method costs next to nothing; what an image hides from the states it
    hides from the gate, too. A gate that is not finite fires.

    Args:
        theta: by layer.
        thresholds: by layer; `fit` puts them halfway between the two means' projections.
        layers: steered; None: all that theta has. The paper chooses them by hand for each model.
        strength: the paper's alpha.
        positions, steps: "all" and "every", as in the paper.
    """

    theta: LayerVectors
    thresholds: Mapping[int, float]
    layers: Layers | None = None

    @classmethod
    def fit(
        cls, backbone: Backbone, harmful: Sequence[str], harmless: Sequence[str], *, layers: Layers = "middle"
    ) -> MeanDifference:
        """Theta and thresholds of the text pass.

        Args:
            layers: fitted and steered; the middle third by default, as in `VLMGuard`.

        Raises:
            ValueError: a class without prompts, layers out of range, or states that are not finite.
        """
        picked = pick_layers(layers, backbone)
        bad, good = (last_states(backbone, prompts) for prompts in (harmful, harmless))
        theta, thresholds = {}, {}
        for layer in picked:
            one, other = bad[layer].mean(dim=0), good[layer].mean(dim=0)
            theta[layer] = one - other
            thresholds[layer] = float((one + other) / 2 @ theta[layer])
        return cls(LayerVectors(theta, backbone.language_fingerprint), thresholds)

    def check(self, backbone: Backbone) -> None:
        """Raise CheckpointError for vectors of another model, ValueError for layers without a vector or threshold."""
        self.theta.check_fits(backbone)
        for layer in self._picked(backbone):
            if layer not in self.theta.values or layer not in self.thresholds:
                raise ValueError(f"layer {layer} has no theta or no threshold; fit them with this layer")

    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """Set up the layers' changes; no pass is run."""
        changes = {
            layer: _gated(self.theta.values[layer], self.thresholds[layer])
            for layer in self._picked(backbone)
        }
        return Plan(changes, torch.ones(len(batch), dtype=torch.bool))

    def _picked(self, backbone: Backbone) -> tuple[int, ...]:
        return pick_layers(sorted(self.theta.values) if self.layers is None else self.layers, backbone)


def _gated(theta: Tensor, threshold: float) -> Change:
    """The change of one layer. The prompt's gates are kept for the decoding steps."""
    kept: list[Tensor] = []

    def change(states: Tensor, step: Step) -> Tensor:
        own = theta.to(states.device)
        if step.last is not None:
            ends = states[torch.arange(len(states), device=states.device), step.last]
            kept[:] = [~(ends @ own <= threshold)]  # so that NaN counts as harmful
        return kept[0][:, None, None] * own

    return change
