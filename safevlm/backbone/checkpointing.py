"""Gradient checkpointing of a frozen LLM: layers keep their inputs and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from safevlm.errors import BackboneError

SWITCHES = ("training", "gradient_checkpointing", "_gradient_checkpointing_func")
"""What transformers reads on a layer; it checkpoints in train mode alone, in which a frozen layer never is."""


@contextmanager
def checkpointed_layers(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Within the context the layers of an LLM, as `Backbone.decoder_layers` lists them, are checkpointed.

    The backward pass may come after the context. Losses, gradients and LoRA's dropout are the same as
    without, the frozen parts run in eval mode all the time, and the model is left as it was.

    Raises:
        BackboneError: a layer cannot be checkpointed.
    """
    for layer in layers:
        if not isinstance(layer, GradientCheckpointingLayer):
            raise BackboneError(
                f"{type(layer).__name__}: this layer of the language model cannot be checkpointed; train without "
                "gradient_checkpointing"
            )
    before = [{name: vars(layer)[name] for name in SWITCHES if name in vars(layer)} for layer in layers]
    try:
        for layer in layers:
            vars(layer).update(zip(SWITCHES, (True, True, _checkpoint), strict=True))
        yield
    finally:
        for layer, values in zip(layers, before, strict=True):
            for name in SWITCHES:
                vars(layer).pop(name, None)
            vars(layer).update(values)


def _checkpoint(call: Callable[..., Any], *args: Any) -> Any:
    """What transformers calls instead of a layer's forward, which it binds to the layer as a `partial`."""
    return checkpoint(_in_eval_mode, call, *args, use_reentrant=False)


def _in_eval_mode(call: Any, *args: Any) -> Any:
    """Run a layer's forward in eval mode: some layers apply dropout themselves."""
    (layer,) = call.args
    before = layer.training
    layer.training = False
    try:
        return call(*args)
    finally:
        layer.training = before
