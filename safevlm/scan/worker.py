"""Samples -> rows. The same picklable callable serves every runner."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from PIL import Image

from safevlm.data import FileSample
from safevlm.errors import SafeVLMError
from safevlm.types import RiskAssessment, Sample, Verdict

logger = logging.getLogger(__name__)

Row: TypeAlias = dict[str, Any]

OK, UNDECIDED, ERROR = "ok", "undecided", "error"
"""Status of a row: has a score, the scorer gave none, the picture could not be read."""

SCORER_ERRORS = (RuntimeError, ValueError, ArithmeticError, MemoryError, OSError, SafeVLMError)
"""What one picture may do to a scorer: out of memory (torch's is a RuntimeError), sizes, a broken model."""


class Scorer(Protocol):
    """What scores pictures, `RiskScorer` or `SafeVLM` for example."""

    def assess(self, images: Sequence[Image.Image], /) -> Sequence[RiskAssessment]:
        """One assessment per image, in order."""
        ...


@dataclass(frozen=True)
class ScanWorker:
    """Turns samples into rows, one each and in order, whatever the scorer does.

    A scorer that fails on a batch is asked again for each picture by itself; one that fails then,
    too, leaves the picture undecided with the reason. Errors that only a mistake in code raises
    (TypeError, AttributeError) are not caught.
    """

    scorer: Scorer

    def __call__(self, samples: Sequence[Sample]) -> list[Row]:
        """Rows with the columns of `safevlm.scan.COLUMNS`."""
        images = [sample.image for sample in samples if sample.image is not None]
        found = iter(self._assess(images))
        return [_row(sample, None if sample.image is None else next(found)) for sample in samples]

    def _assess(self, images: Sequence[Image.Image]) -> list[RiskAssessment]:
        if not images:
            return []
        try:
            found = list(self.scorer.assess(images))
            if len(found) != len(images):
                raise ValueError(f"the scorer returned {len(found)} assessments for {len(images)} images")
        except SCORER_ERRORS as error:
            if len(images) > 1:
                logger.warning("a batch of %d failed (%s); trying its images one by one", len(images), error)
                return [self._assess([image])[0] for image in images]
            reason = f"the scorer failed: {type(error).__name__}: {error}"
            return [RiskAssessment(score=None, reason=reason)]
        return [_checked(assessment) for assessment in found]


def _checked(found: RiskAssessment) -> RiskAssessment:
    """The assessment, or an undecided one where it is not complete: undecided is never safe."""
    if found.score is None or not math.isfinite(found.score):
        return RiskAssessment(score=None, reason=found.reason or "the scorer gave no score")
    if found.verdict is Verdict.UNDECIDED or found.level is None or found.category is None:
        return RiskAssessment(score=None, reason=found.reason or "the policy gave no verdict")
    if not 0 <= found.score <= 1:
        return RiskAssessment(score=None, reason=f"the score {found.score} is not in [0, 1]")
    return found


def _row(sample: Sample, found: RiskAssessment | None) -> Row:
    """One row; an assessment that is None means that the picture could not be read."""
    if found is None:
        found = RiskAssessment(score=None, reason=sample.error or "no image")
        status = ERROR
    else:
        status = UNDECIDED if found.score is None else OK
    return {
        "id": sample.id,
        "width": sample.image.width if sample.image else None,
        "height": sample.image.height if sample.image else None,
        "sha256": (sample.sha256 or None) if isinstance(sample, FileSample) else None,
        "score": found.score,
        "level": found.level,
        "category": found.category,
        "verdict": found.verdict.value,
        "status": status,
        "reason": found.reason,
        "level_probabilities": dict(found.level_probabilities),
        "category_probabilities": dict(found.category_probabilities),
        "calibrated": found.calibrated,
    }
