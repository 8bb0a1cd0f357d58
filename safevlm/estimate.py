"""A measured number with its interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: half of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval and the number of items it rests on, all in [0, 1] but `n`."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """`{value, low, high, n}`, as it stands in JSON."""
        return asdict(self)


def proportion(successes: int, n: int) -> Estimate:
    """`successes` of `n` with the 95 % Wilson score interval (Wilson 1927, JASA 22:209).

    Raises:
        ValueError: n < 1, or successes outside 0..n.
    """
    if n < 1:
        raise ValueError(f"a proportion of n = {n} items is not defined; leave the cell empty (None) instead")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of n = {n}; pass counts with 0 <= successes <= n")
    rate, spread = successes / n, Z95**2 / n
    centre = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread**2 / 4) / (1 + spread)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(rate, low, high, n)
