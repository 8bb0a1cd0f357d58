"""Whether scores are probabilities: of the items with a score of about p, a share of p should be risky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safevlm.estimate import Estimate, proportion

SEED = 0
"""Of the bootstrap."""
BINS = 10
"""Of equal width in [0, 1]."""
REPLICATES = 1000
"""Of the bootstrap: 25 of them lie beyond each end of a 95 % interval."""


@dataclass(frozen=True)
class Bin:
    """The items whose score lies in a tenth of [0, 1].

    Args:
        score: their mean score.
        risky: the share of them that is risky.
    """

    score: float
    risky: Estimate


@dataclass(frozen=True)
class Reliability:
    """Scores against labels.

    Args:
        bins: those that hold items, by rising score.
        error: the expected calibration error: the distance of a bin's mean score from its share of risky items,
            averaged over the items (Naeini, Cooper and Hauskrecht, 2015, AAAI), with a bootstrap interval over items.
        histogram: per bin, also where it is empty, how many items are safe and how many risky.
    """

    bins: tuple[Bin, ...]
    error: Estimate
    histogram: tuple[tuple[int, int], ...]


def reliability(scores: Sequence[float], risky: Sequence[bool]) -> Reliability:
    """Compare scores in [0, 1] with labels; raises ValueError for no items."""
    values, truth = np.asarray(scores, np.float64), np.asarray(risky, np.float64)
    if not len(values):
        raise ValueError("no scores; reliability is measured on one item or more")
    where = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(where, minlength=BINS)
    hits = np.bincount(where, weights=truth, minlength=BINS).astype(np.int64)
    means = np.bincount(where, weights=values, minlength=BINS) / np.maximum(counts, 1)
    found = [n for n in range(BINS) if counts[n]]
    rng = np.random.default_rng(SEED)
    drawn = (rng.integers(len(values), size=len(values)) for _ in range(REPLICATES))
    errors = [_error(where[items], values[items] - truth[items]) for items in drawn]
    low, high = np.percentile(errors, [2.5, 97.5]).tolist()
    value = _error(where, values - truth)
    return Reliability(
        tuple(Bin(float(means[n]), proportion(int(hits[n]), int(counts[n]))) for n in found),
        # resampled errors are larger on average, as errors of a bin do not cancel out
        Estimate(value, min(low, value), max(high, value), len(values)),
        tuple((int(counts[n] - hits[n]), int(hits[n])) for n in range(BINS)),
    )


def _error(where: np.ndarray, gaps: np.ndarray) -> float:
    """Of scores minus labels: their sums per bin, without sign, over all items."""
    return float(np.abs(np.bincount(where, weights=gaps, minlength=BINS)).sum() / len(gaps))
