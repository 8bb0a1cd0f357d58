"""A scorer against labelled images: how well scores and verdicts tell the risky ones, over all and per category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safevlm.errors import DataError
from safevlm.estimate import Estimate, proportion
from safevlm.evals.curves import Curves, Point
from safevlm.evals.metrics import auroc
from safevlm.evals.scored import ScoredImage
from safevlm.reliability import Reliability, reliability
from safevlm.types import Verdict

RATES = (0.01, 0.05)
"""Shares of the safe images that may be flagged, at which recall is told."""
FEWEST = 2
"""Images of each kind that an AUROC needs; categories with fewer have counts alone."""
CURVE_POINTS = 200
"""Points of a curve, at most."""


@dataclass(frozen=True)
class Measures:
    """Risky images, all or those of one category, against all safe ones.

    Args:
        risky, safe: how many there are.
        recall: the verdict unsafe, of the risky images; undecided ones count as missed.
        named: the right category, of the risky images with the verdict unsafe; None for all categories together, and
            where there is none.
        auroc, average_precision: of the scores; None where too few images have one. Precision depends on the share
            of risky images, so categories of different sizes cannot be compared by it.
        at: false-positive rate -> the threshold that flags at most so many of the safe images.
        curves: behind these numbers; None without them.
    """

    risky: int
    safe: int
    recall: Estimate | None
    named: Estimate | None = None
    auroc: Estimate | None = None
    average_precision: Estimate | None = None
    at: Mapping[float, Point] | None = None
    curves: Curves | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; curves as lists of points."""
        found = {name: value for name, value in vars(self).items() if name not in ("at", "curves")}
        return {
            **{name: asdict(v) if isinstance(v, Estimate) else v for name, v in found.items()},
            "at_false_positives": {f"{rate:g}": asdict(point) for rate, point in (self.at or {}).items()},
            "roc": self.curves and self.curves.roc(CURVE_POINTS),
            "precision_recall": self.curves and self.curves.precision_recall(CURVE_POINTS),
        }


@dataclass(frozen=True)
class DataEvaluation:
    """What a scorer does on labelled images.

    Args:
        images: how many there are; `undecided` of them have no score.
        calibrated: whether the scores are.
        whole: all risky images against the safe ones.
        categories: the label's category -> its risky images against all safe ones, largest first.
        precision: risky by its label, of the images with the verdict unsafe.
        false_alarms: the verdict unsafe, of the safe images.
        reliability: whether the scores are probabilities; None without one.
        alarms: safe images with the verdict unsafe, highest score first.
        misses: risky images without it, lowest score first, then undecided ones.
    """

    images: int
    undecided: int
    calibrated: bool
    whole: Measures
    categories: Mapping[str, Measures]
    precision: Estimate | None
    false_alarms: Estimate | None
    reliability: Reliability | None
    alarms: tuple[ScoredImage, ...]
    misses: tuple[ScoredImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "images": self.images,
            "undecided": self.undecided,
            "calibrated": self.calibrated,
            **self.whole.to_dict(),
            "precision": self.precision and asdict(self.precision),
            "false_alarms": self.false_alarms and asdict(self.false_alarms),
            "reliability": self.reliability and asdict(self.reliability),
            "categories": {name: found.to_dict() for name, found in self.categories.items()},
            "false_alarm_images": [_row(one) for one in self.alarms],
            "missed_images": [_row(one) for one in self.misses],
        }


def _row(one: ScoredImage) -> dict[str, Any]:
    return {
        "image": one.name,
        "score": one.found.score,
        "labelled": one.category,
        "category": one.found.category,
        "verdict": one.found.verdict.value,
        "reason": one.found.reason,
    }


def evaluate(images: Sequence[ScoredImage]) -> DataEvaluation:
    """Measure what was found in labelled images.

    Raises:
        DataError: no image has a score.
    """
    undecided = sum(one.found.score is None for one in images)
    if undecided == len(images):
        reason = next((one.found.reason for one in images), "there are no images")
        raise DataError(f"no image has a score, the first one because: {reason}")
    risky, safe = [one for one in images if one.risky], [one for one in images if not one.risky]
    flagged, alarms = sum(map(_flagged, risky)), [one for one in safe if _flagged(one)]
    names = dict.fromkeys(one.category for one in risky if one.category)
    members = {name: [one for one in risky if one.category == name] for name in names}
    scored = [(one.found.score, one.risky) for one in images if one.found.score is not None]
    return DataEvaluation(
        images=len(images),
        undecided=undecided,
        calibrated=all(one.found.calibrated for one in images if one.found.score is not None),
        whole=_measures(risky, safe),
        categories={
            name: _measures(members[name], safe, name)
            for name in sorted(members, key=lambda name: -len(members[name]))
        },
        precision=_rate(flagged, flagged + len(alarms)),
        false_alarms=_rate(len(alarms), len(safe)),
        reliability=reliability(*zip(*scored, strict=True)),
        alarms=tuple(sorted(alarms, key=lambda one: -(one.found.score or 0.0))),
        misses=tuple(
            sorted(
                (one for one in risky if not _flagged(one)),
                key=lambda one: 2.0 if one.found.score is None else one.found.score,
            )
        ),
    )


def _measures(risky: Sequence[ScoredImage], safe: Sequence[ScoredImage], category: str = "") -> Measures:
    flagged = [one for one in risky if _flagged(one)]
    right = sum(one.found.category == category for one in flagged)
    counts = Measures(
        len(risky),
        len(safe),
        recall=_rate(len(flagged), len(risky)),
        named=_rate(right, len(flagged)) if category else None,
    )
    scored = [(one.found.score, one.risky) for one in (*risky, *safe) if one.found.score is not None]
    if min(sum(truth for _, truth in scored), sum(not truth for _, truth in scored)) < FEWEST:
        return counts
    scores, truths = zip(*scored, strict=True)
    curves = Curves.of(scores, truths)
    return Measures(
        counts.risky,
        counts.safe,
        counts.recall,
        counts.named,
        auroc=auroc(scores, truths),
        average_precision=curves.average_precision,
        at={rate: curves.at_false_positives(rate) for rate in RATES},
        curves=curves,
    )


def _flagged(one: ScoredImage) -> bool:
    return one.found.verdict is Verdict.UNSAFE


def _rate(part: int, whole: int) -> Estimate | None:
    return proportion(part, whole) if whole else None
