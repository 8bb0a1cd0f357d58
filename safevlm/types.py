"""Types that all parts of the library share: chats, assessments, replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from safevlm.errors import brief

if TYPE_CHECKING:
    import numpy as np

Chat: TypeAlias = "Sequence[Mapping[str, Any]]"
"""A conversation as chat templates take it: `[{"role": "user", "content": [{"type": "image"}, ...]}]`."""

ReadText: TypeAlias = Literal["never", "auto", "always"]
"""Which images are read for writing: none, those in which the head sees writing, or all."""

DecidedBy: TypeAlias = Literal["image", "prompt", "read_text"]
"""What an assessment rests on: the image alone, the image with its prompt, or the image with what was read in it."""

IGNORED = -100
"""Label that losses and metrics leave out, as in PyTorch and transformers."""


class Verdict(str, Enum):
    """The policy's decision. `UNDECIDED` must never be treated as safe."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNDECIDED = "undecided"


class Action(str, Enum):
    """What the guard does with a request: answer it, answer it with a hint, or refuse it without the LLM."""

    ALLOW = "allow"
    HINT = "hint"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Risk:
    """What the safety head computed for one item, before any policy.

    Args:
        score: P(unsafe) = 1 - P(level "safe"), in [0, 1]; None where it could not be computed.
        level_probabilities: level name -> probability, sums to 1; empty where there is no score.
        category_probabilities: category name -> probability, sums to 1; empty where there is no score.
        calibrated: whether the checkpoint's calibration was applied to the score.
        untrained: whether the modules were never trained, so that the score means nothing.
        reason: why there is no score, or why writing in the image could not be read; else empty.
    """

    score: float | None
    level_probabilities: Mapping[str, float] = field(default_factory=dict)
    category_probabilities: Mapping[str, float] = field(default_factory=dict)
    calibrated: bool = False
    reason: str = ""
    untrained: bool = False


@dataclass(frozen=True)
class RiskAssessment(Risk):
    """A risk and the policy's decision on it.

    Args:
        level: the level that the verdict rests on; None where undecided.
        category: the category that the verdict rests on; None where undecided.
        verdict: safe, unsafe or undecided.
        heatmap: (h, w) float32 in [0, 1], the head's attention over the patch grid scaled so that
            its maximum is 1; None where not asked for or not computed.
        threshold: the least score that is unsafe, in (0, 1], by the policy for the most likely category; None where
            undecided, and where the policy's rule has none.
        read_text: what was read in the image, whichever assessment decided; "" where nothing was found, None
            where it was not read. Its words are as hostile as a prompt's.
        decided_by: image, prompt, or read_text.
    """

    level: str | None = None
    category: str | None = None
    verdict: Verdict = Verdict.UNDECIDED
    heatmap: np.ndarray | None = None
    threshold: float | None = None
    read_text: str | None = None
    decided_by: DecidedBy = "image"

    def __repr__(self) -> str:
        """One line: score, level, category, verdict, and what makes the score worth less."""
        score = None if self.score is None else round(self.score, 3)
        told = (
            f"score={score}, level={self.level!r}, category={self.category!r}, verdict={self.verdict.value!r}"
        )
        reason = f", reason={brief(self.reason)}" if self.reason else ""
        return f"RiskAssessment({told}{reason}{', untrained' if self.untrained else ''})"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary, heatmap as nested lists."""
        return {
            "score": self.score,
            "level": self.level,
            "category": self.category,
            "verdict": self.verdict.value,
            "threshold": self.threshold,
            "level_probabilities": dict(self.level_probabilities),
            "category_probabilities": dict(self.category_probabilities),
            "calibrated": self.calibrated,
            "untrained": self.untrained,
            "reason": self.reason,
            "read_text": self.read_text,
            "decided_by": self.decided_by,
            "heatmap": None if self.heatmap is None else self.heatmap.tolist(),
        }


@dataclass(frozen=True)
class SafeReply:
    """An answer that went through the guard.

    Args:
        text: the answer, without the prompt.
        assessment: the riskiest image's assessment; None for text without an image, or without the guard.
        action: what the policy did.
        hint: the hint that was put before the prompt; empty unless `action` is hint.
    """

    text: str
    assessment: RiskAssessment | None
    action: Action
    hint: str = ""
