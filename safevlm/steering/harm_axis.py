"""What the methods along the harm axis have in common."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from safevlm.backbone import Backbone

from .direction import Direction
from .hooks import Method
from .layers import Layers, pick_layers


@dataclass(frozen=True, eq=False)
class HarmAxisMethod(Method):
    """A method that steers within the span of a direction's rows.

    Args:
        direction: on the axis `harmful_query`.
        layers: steered. "middle" is where harmful and harmless prompts part in most LLMs, "chosen" goes by the
            direction's own separation.
        rank: m, how many of the direction's rows are used, from the first on; None: all (as fitted, 4 by default).

    Raises:
        ValueError: a parameter out of its range.
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
        self.picked(backbone)

    def picked(self, backbone: Backbone) -> tuple[int, ...]:
        """The indices of the decoder layers to steer."""
        return pick_layers(self.layers, backbone, self.direction)

    def rows(self, layer: int) -> Tensor:
        """(m, d) float32: the rows of a layer that are used."""
        return self.direction.rows[layer][: self.rank]
