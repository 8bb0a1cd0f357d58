"""Which hidden state of a tower is read."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from safevlm.errors import BackboneError

from .families import Family

Layer: TypeAlias = int | Literal["auto"] | None
"""A hidden state's index, None for the tower's output, or the family's own choice."""


def layers_read(layer: int, depth: int) -> int:
    """How many of `depth` layers the hidden state of an index (from the end where it is negative) depends on."""
    return layer if layer >= 0 else depth + 1 + layer


def choose_layer(family: Family, config: Any, layer: Layer) -> int | None:
    """The layer to read; raises BackboneError for one that the tower does not have."""
    own = family.vision_layer(config)
    if layer == "auto" or layer == own:
        return own
    if layer is None:
        return None
    depth: int | None = getattr(family.vision_config(config), "num_hidden_layers", None)
    if depth is None:
        raise BackboneError(
            f"this {config.model_type} is read at its tower's output and at no other layer; "
            f"vision_layer is {layer}, set it to None"
        )
    if not 1 <= layers_read(layer, depth) <= depth:
        raise BackboneError(
            f"vision_layer is {layer}, the tower has {depth} layers; give 1 to {depth}, -1 to -{depth}, or "
            "None for its output"
        )
    return layer
