"""Temperature scaling of the level logits (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

import logging
import math

import torch.nn.functional as F
from torch import Tensor

from safevlm.config import Calibration
from safevlm.types import IGNORED

LOGGER = logging.getLogger(__name__)
MIN_ITEMS = 50
"""Fewest labelled items that a temperature is fitted on; fewer would be overfitted."""
MIN_PER_SIDE = 10
"""Safe or risky items below which a warning is logged that the temperature is fitted on few of them."""
LOW, HIGH = math.log(0.01), math.log(100.0)
"""Bounds of log T."""
GOLDEN = (math.sqrt(5) - 1) / 2

PRIOR = 1.0
"""Standard deviation of log T in the prior, whose centre is T = 1: 95 % of it lies in 1/7 < T < 7.

A weakly informative prior keeps a fit finite where classes are (almost) separable and weighs no more than a
few items otherwise (Gelman, Jakulin, Pittau and Su, 2008, arXiv 0901.4011, for logistic regression).
"""


def negative_log_likelihood(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> float:
    """The mean over labelled rows, in nats.

    Args:
        logits: (n, levels), any float dtype; computed in float64.
        labels: (n,) int64, -100 where unlabelled.
        temperature: that the logits are divided by; above 0.
    """
    return float(F.cross_entropy(logits.double() / temperature, labels, ignore_index=IGNORED))


def fit_temperature(logits: Tensor, labels: Tensor, *, items: float = math.inf) -> float:
    """The most probable temperature in [0.01, 100] under the prior, to 1e-4 relative.

    Golden-section search in log T; the likelihood has one maximum there. A temperature of 1 is kept where
    the search finds nothing better, so the likelihood is never less than at 1.

    Args:
        logits: (n, levels).
        labels: (n,) int64, -100 where unlabelled.
        items: independent items behind the rows, which the prior is weighed against; infinitely many
            give the temperature of the greatest likelihood.
    """

    def cost(log: float) -> float:
        return negative_log_likelihood(logits, labels, math.exp(log)) + log * log / (2 * PRIOR**2 * items)

    low, high = LOW, HIGH
    while high - low > 1e-4:
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if cost(left) <= cost(right):
            high = right
        else:
            low = left
    found = (low + high) / 2
    return math.exp(found) if cost(found) <= cost(0.0) else 1.0


def calibrate(logits: Tensor, labels: Tensor, *, data: str, items: int) -> Calibration | None:
    """Fit a temperature; returns None and logs a warning if the rows do not determine one.

    That is so for too few items, for items that are all safe or all risky, for logits that are not finite, and
    if the likelihood has no maximum within the bounds: the levels are separable (a lower temperature is always
    better), or the logits are independent of them (a higher temperature is always better).

    Args:
        logits: (n, levels); an item may have two rows, with and without its prompt.
        labels: (n,) int64, -100 where unlabelled.
        data: what the calibration says it was fitted on.
        items: labelled items behind the rows.
    """
    if (problem := _problem(logits, labels, items)) is not None:
        LOGGER.warning("no calibration, so scores are not called calibrated: %s", problem)
        return None
    temperature = fit_temperature(logits, labels, items=items)
    LOGGER.info("calibration: temperature %.3f on %d items of %s", temperature, items, data)
    return Calibration(temperature, data, items)


def _problem(logits: Tensor, labels: Tensor, items: int) -> str | None:
    """Why there is no calibration; None where there is one."""
    if items < MIN_ITEMS:
        return f"{items} labelled tune items, at least {MIN_ITEMS} are needed"
    if not bool(logits.isfinite().all()):
        return "the head's logits are not finite"
    known = labels != IGNORED
    safe, rows = int((labels[known] == 0).sum()), int(known.sum())
    if safe in (0, rows):
        return f"every labelled tune item is {'safe' if safe else 'risky'}, and both are needed"
    if min(safe, rows - safe) * items < MIN_PER_SIDE * rows:
        LOGGER.warning("the calibration rests on few items: %d safe and %d risky rows", safe, rows - safe)
    likeliest = math.log(fit_temperature(logits, labels))
    if likeliest < LOW + 1e-3:
        apart = "the head tells the tune items' levels apart without an error"
        return f"{apart}, which says nothing of the errors that it makes elsewhere; add harder items"
    if likeliest > HIGH - 1e-3:
        return "the head's scores say nothing about the tune items' levels"
    return None
