"""Curves against counting by hand, and reliability of scores that are or are not probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from safevlm.evals.curves import Curves
from safevlm.reliability import reliability


def made(n: int = 400, steps: int = 20) -> tuple[list[float], list[bool]]:
    """Scores with many ties, higher for risky items."""
    rng = np.random.default_rng(0)
    risky = rng.random(n) < 0.3
    scores = np.round((rng.random(n) + 0.6 * risky) / 1.6 * steps) / steps
    return scores.tolist(), risky.tolist()


def test_every_point_is_what_its_threshold_gives():
    scores, risky = made()
    curves, values, truth = Curves.of(scores, risky), np.array(scores), np.array(risky)
    assert curves.thresholds.tolist() == sorted(set(scores), reverse=True)
    for threshold, hits, alarms in zip(curves.thresholds, curves.hits, curves.alarms, strict=True):
        assert (hits, alarms) == (
            (values >= threshold)[truth].sum(),
            (values >= threshold)[~truth].sum(),
        )
    assert curves.roc(1000)[0] == (0, 0)
    assert curves.roc(1000)[-1] == (1, 1)
    area = np.trapezoid(*np.array(curves.roc(1000)).T[::-1])
    pairs = (values[truth][:, None] > values[~truth]) + 0.5 * (values[truth][:, None] == values[~truth])
    assert area == pytest.approx(pairs.mean())


def test_average_precision_is_the_mean_over_risky_items():
    scores, risky = made()
    values, truth = np.array(scores), np.array(risky)
    at = [truth[values >= score].mean() for score in values[truth]]
    found = Curves.of(scores, risky).average_precision
    assert found.value == pytest.approx(np.mean(at))
    assert found.low < found.value < found.high
    assert found.n == sum(risky)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.3])
def test_recall_at_a_false_positive_rate_is_the_best_there_is(rate):
    scores, risky = made()
    values, truth = np.array(scores), np.array(risky)
    possible = [t for t in set(scores) if (values[~truth] >= t).mean() <= rate]
    best = max(((values[truth] >= t).mean() for t in possible), default=0.0)
    point = Curves.of(scores, risky).at_false_positives(rate)
    assert point.recall.value == best
    assert point.false_positives.value <= rate
    assert point.threshold == (min(possible) if possible else None)


def test_long_curves_are_thinned_and_keep_their_ends_and_shape():
    rng = np.random.default_rng(1)
    risky = rng.random(20_000) < 0.5
    curves = Curves.of((rng.random(20_000) + 0.3 * risky).tolist(), risky.tolist())
    thin, whole = np.array(curves.roc(200)), np.array(curves.roc(10**6))
    assert len(thin) <= 203
    assert (thin[-1] == whole[-1]).all()
    nearest = [np.hypot(*(thin - point).T).min() for point in whole[::50]]
    assert max(nearest) < 0.01


def test_curves_of_one_kind_alone_are_refused():
    with pytest.raises(ValueError, match="need risky and safe items"):
        Curves.of([0.1, 0.2], [False, False])


def test_reliability_of_probabilities_and_of_others():
    rng = np.random.default_rng(0)
    scores = rng.random(5000)
    risky = rng.random(5000) < scores
    good = reliability(scores.tolist(), risky.tolist())
    assert good.error.value < 0.03
    assert good.error.low <= good.error.value <= good.error.high
    assert sum(safe + risk for safe, risk in good.histogram) == 5000
    for one in good.bins:
        assert one.risky.low <= one.score + 0.03
        assert one.score - 0.03 <= one.risky.high
    always = reliability([0.9] * 10, [False] * 10)
    assert always.error.value == pytest.approx(0.9)
    assert [one.risky.n for one in always.bins] == [10]
    assert reliability([1.0], [True]).histogram[-1] == (0, 1)
