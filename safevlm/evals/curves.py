"""Scores and labels -> what every threshold gives: ROC and precision-recall curves, and points on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safevlm.estimate import Z95, Estimate, proportion

_Array = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """What one threshold gives.

    Args:
        threshold: the least score that is flagged; None: nothing is.
        recall: flagged, of the risky items.
        false_positives: flagged, of the safe items.
    """

    threshold: float | None
    recall: Estimate
    false_positives: Estimate


@dataclass(frozen=True)
class Curves:
    """What a threshold at each different score gives, from the highest down.

    Args:
        thresholds: (k,) the different scores, falling.
        hits, alarms: (k,) risky and safe items whose score is at least the threshold.
    """

    thresholds: _Array
    hits: _Counts
    alarms: _Counts

    @classmethod
    def of(cls, scores: Sequence[float], risky: Sequence[bool]) -> Curves:
        """The curves of finite scores, higher = riskier; raises ValueError unless there are risky and safe items."""
        values, truth = np.asarray(scores, np.float64), np.asarray(risky, bool)
        if truth.all() or not truth.any():
            raise ValueError(f"curves need risky and safe items; got {truth.sum()} risky of {len(truth)}")
        order = np.argsort(-values, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
        hits, alarms = np.cumsum(truth[order])[ends], np.cumsum(~truth[order])[ends]
        return cls(values[order][ends], hits.astype(np.int64), alarms.astype(np.int64))

    @property
    def risky(self) -> int:
        """How many items are risky."""
        return int(self.hits[-1])

    @property
    def safe(self) -> int:
        """How many items are safe."""
        return int(self.alarms[-1])

    @property
    def average_precision(self) -> Estimate:
        """The precision at each risky item, averaged; of equal scores all are counted together.

        The interval is taken on the logit scale, with the variance of a proportion of the risky items (Boyd, Eng and
        Page, 2013, ECML PKDD, section 4.3). `n` is the number of risky items. It depends on the share of risky items
        in the data, which is its value for scores that say nothing.
        """
        precision = self.hits / (self.hits + self.alarms)
        value = float((np.diff(self.hits, prepend=0) * precision).sum() / self.risky)
        if not 1e-12 < value < 1 - 1e-12:
            edge = proportion(round(value * self.risky), self.risky)
            return Estimate(value, edge.low, edge.high, self.risky)
        centre, half = math.log(value / (1 - value)), Z95 / math.sqrt(self.risky * value * (1 - value))
        low, high = (1 / (1 + math.exp(-(centre + side))) for side in (-half, half))
        return Estimate(value, low, high, self.risky)

    def at_false_positives(self, rate: float) -> Point:
        """The point of the highest recall at which at most a share of the safe items is flagged, in [0, 1)."""
        allowed = math.floor(round(rate * self.safe, 6))
        last = int(np.searchsorted(self.alarms, allowed, side="right")) - 1
        hits, alarms = (int(self.hits[last]), int(self.alarms[last])) if last >= 0 else (0, 0)
        threshold = float(self.thresholds[last]) if last >= 0 else None
        return Point(threshold, proportion(hits, self.risky), proportion(alarms, self.safe))

    def roc(self, most: int) -> list[tuple[float, float]]:
        """(false-positive rate, recall) from (0, 0) to (1, 1), at most about so many points."""
        x, y = self.alarms / self.safe, self.hits / self.risky
        return [(0.0, 0.0), *_thinned(x, y, most)]

    def precision_recall(self, most: int) -> list[tuple[float, float]]:
        """(recall, precision) from the highest threshold down, at most about so many points."""
        return _thinned(self.hits / self.risky, self.hits / (self.hits + self.alarms), most)


def _thinned(x: _Array, y: _Array, most: int) -> list[tuple[float, float]]:
    """The points at equal distances along the curve; all where they are few."""
    kept = np.arange(len(x))
    if len(x) > most:
        along = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most)).clip(0, len(x) - 1))
        kept = np.union1d(kept, [0, len(x) - 1])
    return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))
