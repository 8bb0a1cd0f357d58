"""Backbones in 4 or 8 bits: the language model is quantized, the vision tower stays as it was trained on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers.quantizers.auto import AutoQuantizationConfig

from safevlm.errors import BackboneError

SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")
OUTPUT_HEAD = "lm_head"
"""What transformers leaves out where no list is given."""


def skip_tower(quantization_config: Any, tower: str) -> Any:
    """A copy of a transformers quantization config (or its dict) that leaves the module `tower` out.

    Raises:
        BackboneError: its method has no list of modules to leave out.
    """
    if isinstance(quantization_config, Mapping):
        quantization_config = AutoQuantizationConfig.from_dict(dict(quantization_config))
    name = next((name for name in SKIP_LISTS if hasattr(quantization_config, name)), None)
    if name is None:
        raise BackboneError(
            f"{type(quantization_config).__name__} cannot leave modules out, and scores rest on the vision "
            f"tower's own weights; use one that has {' or '.join(SKIP_LISTS)}, such as BitsAndBytesConfig"
        )
    kept = copy.deepcopy(quantization_config)
    given = getattr(kept, name)
    setattr(kept, name, [*([OUTPUT_HEAD] if given is None else given), tower])
    return kept


def check_unquantized(tower: nn.Module, name: str) -> None:
    """Raise BackboneError where a vision tower's weights are no floating-point numbers of 16 bits or more.

    Some methods keep them in buffers: a layer that has those and no `weight` is quantized, too.
    """
    quantized = [
        key
        for key, weight in tower.named_parameters()
        if not weight.is_floating_point() or weight.element_size() < 2
    ]
    quantized += [key for key, _ in tower.named_buffers() if key.endswith(("qweight", "weight_packed"))]
    if quantized:
        raise BackboneError(
            f"{name}: {len(quantized)} weights of the vision tower are quantized, {quantized[0]!r} first, and "
            "scores rest on its own weights; load the backbone unquantized and give quantization_config=..., "
            "which leaves the tower out"
        )
