"""Temperature scaling of the level logits (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

import logging
import math

import torch.nn.functional as F
from torch import Tensor

from safevlm.config import Calibration

from .table import IGNORED

LOGGER = logging.getLogger(__name__)
LEAST = 50
"""Labelled items below which a fitted temperature says more about the items than about the head."""
LOW, HIGH = math.log(0.01), math.log(100.0)
GOLDEN = (math.sqrt(5) - 1) / 2


def negative_log_likelihood(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> float:
    """Mean over labelled rows, in nats."""
    return float(F.cross_entropy(logits.double() / temperature, labels, ignore_index=IGNORED))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in [0.01, 100] with the least negative log-likelihood, to 1e-4 relative.

    The likelihood has one maximum in 1 / T, and so in log T: golden-section search finds it. A
    temperature of 1 is kept where the search finds nothing better.
    """
    low, high = LOW, HIGH
    while high - low > 1e-4:
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if negative_log_likelihood(logits, labels, math.exp(left)) <= negative_log_likelihood(
            logits, labels, math.exp(right)
        ):
            high = right
        else:
            low = left
    found = math.exp((low + high) / 2)
    better = negative_log_likelihood(logits, labels, found) <= negative_log_likelihood(logits, labels)
    return found if better else 1.0


def calibrate(logits: Tensor, labels: Tensor, *, data: str, items: int) -> Calibration | None:
    """A calibration, or None and a log line for too few items.

    Args:
        logits: (n, levels); an item may have two rows, with and without its prompt.
        labels: (n,) int64, -100 where unlabelled.
        data: what the calibration says it was fitted on.
        items: labelled items behind the rows.
    """
    if items < LEAST:
        LOGGER.warning("no calibration: %d labelled tune items, at least %d are needed", items, LEAST)
        return None
    if not bool(logits.isfinite().all()):
        LOGGER.warning("no calibration: the head's logits are not finite")
        return None
    temperature = fit_temperature(logits, labels)
    LOGGER.info("calibration: temperature %.3f on %d items of %s", temperature, items, data)
    return Calibration(temperature, data, items)
