"""What tells one set of weights from another, in a few numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

FINGERPRINTED_ROWS = 1024
"""Rows of a large matrix of an LLM that are read: enough to tell its weights, and soon read."""

TINY = 1e-12
"""So that a matrix of zeros has a number, too: 0."""


def fingerprint(matrices: Iterable[Tensor]) -> tuple[float, ...]:
    """For each matrix w, w . cos(0, 1, 2, ...) / |w|.

    The numbers are mostly in [-2, 2]. Rounding the weights to float16 or bfloat16 moves them by
    about 0.002, other weights by about 0.7.
    """
    waves: dict[tuple[int, torch.device], Tensor] = {}  # most matrices of a tower have one of a few sizes
    return tuple(_number(matrix.detach().flatten().float(), waves) for matrix in matrices)


def _number(flat: Tensor, waves: dict[tuple[int, torch.device], Tensor]) -> float:
    key = len(flat), flat.device
    if key not in waves:
        waves[key] = torch.arange(len(flat), device=flat.device, dtype=torch.float32).cos()
    return round(float(flat @ waves[key] / flat.norm().clamp_min(TINY)), 4)


def same_weights(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two fingerprints are of the same weights, in whatever floating-point type each was."""
    return len(one) == len(other) and all(abs(a - b) <= 0.02 for a, b in zip(one, other, strict=True))


def first_matrix(layer: nn.Module) -> Tensor:
    """The first rows of the first matrix of a decoder layer: a base weight, which stands before its LoRA."""
    return next(parameter for parameter in layer.parameters() if parameter.ndim > 1)[:FINGERPRINTED_ROWS]


def read_matrices(tower: nn.Module, layers: int | None) -> Iterator[Tensor]:
    """The matrices of a tower that its features depend on, in order: embeddings and the first `layers`.

    With None all but a pooling head, for towers whose whole output is read.
    """
    for name, parameter in tower.named_parameters():
        number = _LAYER.search(name)
        read = not name.startswith(("head.", "vision_model.head."))
        if layers is not None:
            read = int(number[1]) < layers if number else "embeddings" in name
        if parameter.ndim > 1 and read:
            yield parameter


_LAYER = re.compile(r"\b(?:layers?|blocks)\.(\d+)\.")
