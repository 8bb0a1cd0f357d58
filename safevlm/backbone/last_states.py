"""The LLM's last hidden states: what a value head reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .load_backbone import Backbone


@contextmanager
def last_states(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Within the context each forward pass adds what the output layer is given, (B, L, dim), to the list."""
    found: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0])

    handle = backbone.model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield found
    finally:
        handle.remove()
