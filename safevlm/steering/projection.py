"""The projection alone, for ablations: it makes a model refuse less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safevlm.backbone import Backbone

from .batch import Batch
from .harm_axis import HarmAxisMethod
from .hooks import Change, Plan, Step


@dataclass(frozen=True, eq=False)
class Projection(HarmAxisMethod):
    """Takes the states off the harm axis, and nothing else: `h - strength * h V^T V` with a layer's rows V (m, d).

    It is the first half of VLM-Guard (arXiv 2502.10486), and the same operation as the ablation of a refusal
    direction (Arditi et al., arXiv 2406.11717), so it weakens refusals. For tables alone, never a guard.

    Args:
        direction, layers, rank: as in `HarmAxisMethod`.
        strength, positions, steps: as in `VLMGuard`; every prompt is steered, with an image or without.
    """

    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """Set up the layers' changes; no pass is run."""
        changes = {layer: _without(self.rows(layer)) for layer in self.picked(backbone)}
        return Plan(changes, torch.ones(len(batch), dtype=torch.bool))


def _without(rows: Tensor) -> Change:
    def change(states: Tensor, _: Step) -> Tensor:
        own = rows.to(states.device)
        return -(states @ own.T @ own)

    return change
