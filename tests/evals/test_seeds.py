"""Means over seeds: Student's t by integration, and which interval is the wider one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safevlm.estimate import Estimate
from safevlm.evals.seeds import T975, over_seeds


def test_the_quantiles_are_students():
    for freedom, quantile in enumerate(T975, 1):
        x = np.linspace(0, quantile, 200_001)
        scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
        density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        area = ((density[1:] + density[:-1]) / 2 * np.diff(x)).sum()
        assert area == pytest.approx(0.475, abs=2e-6)


def test_the_wider_of_seeds_and_items_counts():
    alike = [Estimate(0.5, 0.3, 0.8, 10)] * 3
    assert over_seeds(alike, within=(0, 1)) == Estimate(pytest.approx(0.5), 0.3, pytest.approx(0.8), 30)
    apart = [Estimate(value, value - 0.01, value + 0.01, 10) for value in (0.4, 0.5, 0.6)]
    found = over_seeds(apart, within=(0, 1))
    assert found.low == pytest.approx(0.5 - 4.3027 * 0.1 / math.sqrt(3))
    assert found.high == pytest.approx(0.5 + 4.3027 * 0.1 / math.sqrt(3))
    assert over_seeds([Estimate(0.0, 0.0, 0.0, 1), Estimate(1.0, 1.0, 1.0, 1)], within=(0, 1)).high == 1
    assert over_seeds(apart[:1], within=(0, 1)) == apart[0]
    with pytest.raises(ValueError, match="0 seeds"):
        over_seeds([], within=(0, 1))
