"""The safety tokens: two independent sets of learned vectors."""

from __future__ import annotations

import torch
from torch import nn

from ._checks import positive


class SafetyTokens(nn.Module):
    """Two sets of `count` x `dim` parameters, N(0, 0.02) each (arXiv 2405.13581; 64 x 4096 in the paper).

    head: set A, prepended to the projected features as keys and values of the safety head.
    prompt: set B, prepended to the language model's image tokens (a soft prompt, the same for
        every image); it belongs to the language model's input, so nothing in this room reads it.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        positive("SafetyTokens", count=count, dim=dim)
        self.head = nn.Parameter(torch.empty(count, dim).normal_(std=0.02))
        self.prompt = nn.Parameter(torch.empty(count, dim).normal_(std=0.02))
