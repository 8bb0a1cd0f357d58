"""The states of prompts' last tokens, which directions and gates are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from safevlm.backbone import Backbone

from .batch import Batch, hidden, last_positions
from .hooks import unsteered

BATCH_SIZE = 16
"""Prompts of one forward pass when a method is fitted."""


@torch.no_grad()
def last_states(backbone: Backbone, batch: Batch, layers: Iterable[int]) -> dict[int, Tensor]:
    """One forward pass without steering: layer -> (B, d) float32, each prompt's last token at that layer's output.

    The output head is run for one position alone.
    """
    found: dict[int, Tensor] = {}
    rows, last = torch.arange(len(batch)), last_positions(batch.mask)

    def taking(layer: int) -> Any:
        def take(_: nn.Module, __: Any, output: Any) -> None:
            found[layer] = hidden(output)[rows, last].float()

        return take

    own = backbone.decoder_layers
    with ExitStack() as stack:
        stack.enter_context(backbone.tower.lock)
        stack.enter_context(unsteered())
        for layer in layers:
            handle = own[layer].register_forward_hook(taking(layer))
            stack.enter_context(backbone.tower.lock.undoing(handle.remove))
        backbone.model(**backbone.on_device(batch.inputs.tensors), use_cache=False, logits_to_keep=1)
    return found


def states_of(
    backbone: Backbone,
    prompts: Sequence[str],
    layers: Sequence[int],
    *,
    image: Image.Image | None = None,
) -> dict[int, Tensor]:
    """Layer -> (N, d) float32 on the CPU: the last token's states of prompts, as text or each with one image.

    Raises:
        ValueError: no prompts.
    """
    if not prompts:
        raise ValueError("no prompts to read states of; give at least one")
    parts = []
    for start in range(0, len(prompts), BATCH_SIZE):
        some = prompts[start : start + BATCH_SIZE]
        batch = Batch.encode(backbone, some, None if image is None else [[image]] * len(some))
        parts.append(last_states(backbone, batch, layers))
    return {layer: torch.cat([part[layer].cpu() for part in parts]) for layer in layers}
