"""Targets of the ratios: on an H200-class GPU in bfloat16, and on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass

from .names import (
    CACHED,
    DECODING,
    EIGHT,
    FIRST_TOKEN,
    FOLDED,
    FROM_FILES,
    HEAD_TRAINING,
    OURS,
    SCORING,
    SIXTY_FOUR,
    VERDICTS,
    WHOLE_SCAN,
)


@dataclass(frozen=True)
class Target:
    """An upper or lower bound on a ratio."""

    bound: float
    at_most: bool

    def met(self, ratio: float) -> bool:
        """Whether a ratio meets the target."""
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


def _at_most(bound: float) -> Target:
    return Target(bound, at_most=True)


def _at_least(bound: float) -> Target:
    return Target(bound, at_most=False)


SOURCES = ("folder", "wds", "parquet", "hf", "llava", "coco", "jsonl")

TARGETS: dict[tuple[str, str], dict[tuple[str, str], Target]] = {
    ("cuda", "vit-l-14-336"): {
        (SCORING, FOLDED): _at_most(1.03),
        (SCORING, FROM_FILES): _at_least(0.90),
        **{(WHOLE_SCAN, f"scan, {kind}"): _at_least(0.90) for kind in SOURCES},
        (FIRST_TOKEN, EIGHT): _at_most(1.03),
        (FIRST_TOKEN, SIXTY_FOUR): _at_most(1.12),
        (DECODING, EIGHT): _at_least(0.99),
        (DECODING, SIXTY_FOUR): _at_least(0.99),
        (HEAD_TRAINING, CACHED): _at_least(10),
        (VERDICTS, OURS): _at_least(20),
    },
    ("cpu", "vit-b-32"): {
        (SCORING, FOLDED): _at_most(1.10),
        (SCORING, FROM_FILES): _at_least(0.85),
        **{(WHOLE_SCAN, f"scan, {kind}"): _at_least(0.85) for kind in SOURCES},
    },
    ("cpu", "mini"): {  # the bare tower is folded, too
        (SCORING, FOLDED): _at_most(1.15),
        (SCORING, FROM_FILES): _at_least(0.80),
        **{(WHOLE_SCAN, f"scan, {kind}"): _at_least(0.80) for kind in SOURCES},
    },
}
"""(device type, shape) -> (quantity, variant) -> target."""


def target_of(device_type: str, shape: str, quantity: str, variant: str) -> Target | None:
    """The target of a variant's ratio; None if there is none."""
    return TARGETS.get((device_type, shape), {}).get((quantity, variant))
