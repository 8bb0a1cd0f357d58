"""The linear layers of a language model: what LoRA may adapt."""

from __future__ import annotations

from typing import Any

from torch import nn

from .families import family_of


def language_linears(model: Any) -> dict[str, nn.Linear]:
    """The linear layers inside the text decoder's layers, by their names in `model`; not its output layer.

    Args:
        model: a model of a known family, without LoRA layers.

    Raises:
        BackboneError: an unknown family, or a decoder without a list of layers.
    """
    layers = family_of(model.config).decoder_layers(model)
    inside = {id(part) for layer in layers for part in layer.modules() if isinstance(part, nn.Linear)}
    return {name: part for name, part in model.named_modules() if id(part) in inside}
