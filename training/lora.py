"""LoRA layers on the language model's linear layers: options, injection, and what of them is trained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from safevlm.backbone import language_linears
from safevlm.errors import BackboneError


@dataclass(frozen=True)
class Lora:
    """LoRA layers on the language model's linear layers.

    Args:
        r: rank; 256 in the paper.
        alpha: scale is alpha / r; 16 in the paper.
        dropout: of the layers' input, a probability; 0.05 in the paper.
    """

    r: int = 256
    alpha: int = 16
    dropout: float = 0.05


LORA = Lora()
"""The paper's."""


def lora_targets(model: Any) -> str:
    """A regular expression of the language model's linear layers, by their names in `model`.

    Raises:
        BackboneError: the language model has no linear layer.
    """
    names = list(language_linears(model))
    if not names:
        raise BackboneError(
            f"{type(model).__name__}: no linear layer in its language model; LoRA has nothing to adapt"
        )
    patterns = dict.fromkeys(re.sub(r"\d+", r"\\d+", re.escape(name)) for name in names)
    return f"({'|'.join(patterns)})"


def inject_lora(model: Any, options: Lora, *, second: str | None = None) -> None:
    """Add new LoRA layers to the language model's linear layers, in place; the model's outputs stay the same.

    Args:
        model: of a known family, without LoRA layers.
        options: of the LoRA layers.
        second: name of another set of LoRA layers beside the active one, "default", for `lora_active`; it is not saved.

    Raises:
        BackboneError: the language model has no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=lora_targets(model),
    )
    names = ("default",) if second is None else (second, "default")
    for name in names:
        vars(model).pop("peft_config", None)  # PEFT would warn of a second set
        inject_adapter_in_model(config, model, adapter_name=name)
    model.peft_config = dict.fromkeys(names, config)
    for layer in _lora_layers(model):
        layer._active_adapter = ["default"]


def unfreeze_lora(model: nn.Module) -> list[nn.Module]:
    """Make LoRA's weights trainable, in float32; returns the dropout modules, which need their own `train()`."""
    dropouts: list[nn.Module] = []
    for layer in _lora_layers(model):
        for part in (layer.lora_A, layer.lora_B):
            part.requires_grad_(True).to(torch.float32)
        dropouts += list(layer.lora_dropout.modules())
    return dropouts


@contextmanager
def lora_active(model: nn.Module, name: str) -> Iterator[None]:
    """Within the context the set of LoRA layers of this name acts in place of the active one.

    A backward pass that runs layers again (gradient checkpointing) belongs into the context, too. PEFT's own switch
    would also change which parameters take gradients.
    """
    before = [(layer, layer._active_adapter) for layer in _lora_layers(model)]
    try:
        for layer, _ in before:
            layer._active_adapter = [name]
        yield
    finally:
        for layer, was in before:
            layer._active_adapter = was


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
