"""Which decoder layers a method steers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from safevlm.backbone import Backbone
from safevlm.errors import brief

from .direction import Direction

Layers: TypeAlias = "Literal['middle', 'chosen', 'all'] | Sequence[int]"
"""The middle third of the decoder's layers, those that a direction chose by separation, all, or their indices from 0."""


def pick_layers(layers: Layers, backbone: Backbone, direction: Direction | None = None) -> tuple[int, ...]:
    """The indices of decoder layers to steer, ascending.

    Raises:
        ValueError: a layer out of range or not in the direction, none at all, or "chosen" without a direction.
    """
    count = len(backbone.decoder_layers)
    known = range(count) if direction is None else sorted(direction.rows)
    if isinstance(layers, str):
        if layers == "chosen" and direction is not None:
            picked: Sequence[int] = direction.layers
        elif layers in ("middle", "all"):
            third = count // 3 if layers == "middle" else 0
            picked = range(third, count - third)
        else:
            raise ValueError(
                f"layers is {brief(layers)}; give 'middle', 'all', indices, or 'chosen' with a direction"
            )
    else:
        picked = sorted(set(layers))
    foreign = [layer for layer in picked if layer not in known or layer >= count]
    if foreign or not picked:
        raise ValueError(
            f"layers is {brief(layers)}, which means {brief(foreign) if foreign else 'none'}; the model has {count} "
            f"decoder layers from 0, and there are values for {brief(list(known))}"
        )
    return tuple(picked)
