"""A training clock: the learning rate and the end follow the time used, not the steps done."""

from __future__ import annotations

import math
import time


class Clock:
    """Time budget with warm-up and cosine decay.

    `minutes` is the budget (> 0); with `steps` given the budget counts steps instead, so that
    tests end after a known number.
    """

    def __init__(self, minutes: float, *, warm_up: float = 0.04, steps: int | None = None) -> None:
        self._budget, self._warm_up, self._steps = minutes * 60, warm_up, steps
        self._start, self._done = time.monotonic(), 0

    def tick(self) -> float:
        """Count a step; the share of the budget that is used, in [0, inf)."""
        self._done += 1
        if self._steps is not None:
            return (self._done - 1) / self._steps
        return (time.monotonic() - self._start) / self._budget

    def rate(self, share: float) -> float:
        """Learning rate factor in [0, 1] at this share of the budget."""
        if share < self._warm_up:
            return max(share, 1e-3) / self._warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - self._warm_up) / (1 - self._warm_up))))
