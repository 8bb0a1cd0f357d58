"""What one batch of sampled answers is: the answers, and what policy, reference and value head said when they were sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from .policy import Answered
from .samples import Sample


@dataclass(frozen=True)
class Part:
    """Answers that go through the model together.

    Args:
        answered: prompts and answers, encoded.
        rows: which of the rollout's answers these are.
    """

    answered: Answered
    rows: slice


@dataclass(frozen=True)
class Rollout:
    """Sampled answers; tensors are (B, T) on the model's device, filled up on the right.

    Args:
        samples: what was asked.
        texts: the answers without special tokens.
        lengths: tokens of each answer, the one that ended it included.
        ended: whether each ended, and was not cut off.
        parts: the answers in the groups in which they go through the model.
        log_probs, reference: float32, of each token by the policy that sampled it and by the reference; 0 outside the mask.
        values: float32, of the state before each token; 0 without a value head.
        mask: bool, where the answers' tokens are.
    """

    samples: Sequence[Sample]
    texts: Sequence[str]
    lengths: Sequence[int]
    ended: Sequence[bool]
    parts: Sequence[Part]
    log_probs: Tensor
    reference: Tensor
    values: Tensor
    mask: Tensor


def bounds(count: int, size: int) -> Iterator[slice]:
    """Slices of `count` rows in groups of `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
