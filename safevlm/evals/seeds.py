"""A mean over trainings that differ by their seed, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from safevlm.estimate import Estimate

T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""97.5 % quantiles of Student's t for 1 to 9 degrees of freedom."""


def over_seeds(estimates: Sequence[Estimate], *, within: tuple[float, float]) -> Estimate:
    """The mean of the same measurement of several trainings.

    The interval is the union of two: Student's t interval of the mean over the seeds, which says what another training may
    give, and the mean of the seeds' own intervals, which say what other items may give. One seed has its own alone.

    Args:
        estimates: one for each seed, 1 to 10.
        within: the least and the greatest value that there can be, such as (0, 1); the interval ends there.

    Returns:
        The mean and its 95 % interval; n is the items of all seeds together, which may be the same ones.

    Raises:
        ValueError: no estimate, or more than 10.
    """
    count = len(estimates)
    if not 1 <= count <= len(T975) + 1:
        raise ValueError(f"{count} seeds; a mean is made of 1 to {len(T975) + 1}")
    mean, low, high = (
        math.fsum(getattr(one, name) for one in estimates) / count for name in ("value", "low", "high")
    )
    if count > 1:
        variance = math.fsum((one.value - mean) ** 2 for one in estimates) / (count - 1)
        half = T975[count - 2] * math.sqrt(variance / count)
        low, high = min(low, mean - half), max(high, mean + half)
    return Estimate(mean, max(within[0], low), min(within[1], high), sum(one.n for one in estimates))
