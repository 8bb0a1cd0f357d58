"""The projection alone, for ablations: it makes a model refuse less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safevlm.backbone import Backbone

from .batch import Batch
from .direction import Direction
from .hooks import Change, Method, Plan, Step
from .layers import Layers, pick_layers


@dataclass(frozen=True, eq=False)
class Projection(Method):
    """Takes the states off the harm axis, and nothing else: `h - strength * h V^T V` with a layer's rows V (m, d).

    It is the first half of VLM-Guard (arXiv 2502.10486), and the same operation as the ablation of a refusal
    direction (Arditi et al., arXiv 2406.11717), so it weakens refusals. For tables alone, never a guard.

    Args:
        direction: on the axis `harmful_query`.
        layers: steered; "middle" as in `VLMGuard`.
        rank: how many of the direction's rows are used, from the first on; None: all.
        strength, positions, steps: as in `VLMGuard`; every prompt is steered, with an image or without.
    """

    direction: Direction
    layers: Layers = "middle"
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is not None and not 1 <= self.rank <= self.direction.rank:
            raise ValueError(f"rank is {self.rank}, the direction has 1 to {self.direction.rank} rows")

    def check(self, backbone: Backbone) -> None:
        """Raise CheckpointError for a direction of another axis or model, ValueError for layers out of range."""
        self.direction.check_axis("harmful_query")
        self.direction.check_fits(backbone)
        pick_layers(self.layers, backbone, self.direction)

    def plan(self, backbone: Backbone, batch: Batch) -> Plan:
        """Set up the layers' changes; no pass is run."""
        picked = pick_layers(self.layers, backbone, self.direction)
        changes = {layer: _without(self.direction.rows[layer][: self.rank]) for layer in picked}
        return Plan(changes, torch.ones(len(batch), dtype=torch.bool))


def _without(rows: Tensor) -> Change:
    def change(states: Tensor, _: Step) -> Tensor:
        own = rows.to(states.device)
        return -(states @ own.T @ own)

    return change
