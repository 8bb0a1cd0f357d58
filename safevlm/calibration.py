"""From the head's logits on tune rows: the calibration of its scores, and the thresholds that are chosen on them."""

from __future__ import annotations

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from safevlm.config import Calibration, OperatingPoint, Reading, SafetyConfig
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED, Risk

LOGGER = logging.getLogger(__name__)
NOT_FINITE = "the safety head gave a value that is not finite; check the weights and the image's features"
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


def level_probabilities(logits: Tensor, calibration: Calibration | None) -> Tensor:
    """Probabilities of the levels, calibrated where there is a calibration.

    The logits are divided by the temperature, and those of the risky levels moved by the log odds of the prior against
    those of the fitted data: where P(logits | level) stays as it was, this gives the probabilities under the prior.

    Args:
        logits: (n, levels), any float dtype; the first level is the safe one.
        calibration: None: softmax alone.

    Returns:
        (n, levels) float64, rows sum to 1.
    """
    if calibration is None:
        return logits.double().softmax(-1)
    scaled = logits.double() / calibration.temperature
    scaled[:, 1:] += calibration.log_odds_shift
    return scaled.softmax(-1)


def logit_risks(level_logits: Tensor, category_logits: Tensor, config: SafetyConfig) -> list[Risk]:
    """A risk for each row of logits, computed in float64; a row with a number that is not finite has no score.

    Args:
        level_logits, category_logits: (n, levels) and (n, categories), any float dtype.
        config: names levels and categories, and has the calibration.
    """
    taxonomy, calibration = config.taxonomy, config.calibration
    levels = level_probabilities(level_logits, calibration).cpu()
    categories = category_logits.double().softmax(-1).cpu()
    found = []
    for level, category in zip(levels, categories, strict=True):
        if not bool(torch.isfinite(level).all() and torch.isfinite(category).all()):
            found.append(Risk(None, reason=NOT_FINITE, untrained=config.untrained))
            continue
        by_level = dict(zip(taxonomy.levels, level.tolist(), strict=True))
        by_category = dict(zip(taxonomy.category_names, category.tolist(), strict=True))
        score = min(1.0, max(0.0, 1.0 - float(level[0])))
        found.append(
            Risk(
                score,
                by_level,
                by_category,
                calibrated=calibration is not None,
                untrained=config.untrained,
            )
        )
    return found


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


def calibrate(
    logits: Tensor, labels: Tensor, *, data: str, items: int, prior: float | None = None
) -> Calibration | None:
    """Fit a temperature; returns None and logs a warning if the rows do not determine one.

    That is so for too few items, for items that are all safe or all risky, for logits that are not finite, and
    if the likelihood has no maximum within the bounds: the levels are separable (a lower temperature is always
    better), or the logits are independent of them (a higher temperature is always better).

    Args:
        logits: (n, levels); an item may have two rows, with and without its prompt.
        labels: (n,) int64, -100 where unlabelled.
        data: what the calibration says it was fitted on.
        items: labelled items behind the rows.
        prior: share of risky items that the scores are to assume, in (0, 1); None: that of the rows.
    """
    if (problem := _problem(logits, labels, items)) is not None:
        LOGGER.warning("no calibration, so scores are not called calibrated: %s", problem)
        return None
    temperature = fit_temperature(logits, labels, items=items)
    share = float((labels[labels != IGNORED] > 0).double().mean())
    found = Calibration(temperature, data, items, share=share, prior=share if prior is None else prior)
    LOGGER.info(
        "calibration: temperature %.3f on %d items of %s, %.1f %% of the rows risky; scores assume %.1f %%",
        temperature, items, data, 100 * share, 100 * (found.prior or share),
    )  # fmt: skip
    return found


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


def fewest_items(rate: float) -> int:
    """Items that are needed to see a rate of errors: 3 / rate, 100 for 3 %.

    With n items of which none is wrong, the rate's upper 95 % bound is 3 / n, the rule of three (Hanley and
    Lippman-Hand, JAMA 249, 1983); with fewer, a threshold would rest on less than three items.
    """
    return math.ceil(round(3 / rate, 6))


def least_threshold(safe: Tensor, scores: Tensor, *, allowed: int) -> float | None:
    """The least threshold that flags at most so many safe items; None where too many of them have a score of 1.

    It lies halfway between the highest score that must not be flagged and the next one above it, so that it flags
    the items that the least one does, and the last digits of a score decide nothing. Of equal scores all are
    flagged or none.

    Args:
        safe: (n,) scores in [0, 1] of the safe items.
        scores: (m,) scores of all items.
        allowed: below n.
    """
    highest = float(safe.sort(descending=True).values[allowed])
    above = scores[scores > highest]
    threshold = _halfway(highest, above.min().item() if len(above) else 1.0)
    return threshold if threshold > highest else None


def greatest_threshold(risky: Tensor, scores: Tensor, *, needed: int) -> float | None:
    """The greatest threshold that flags at least so many risky items; None where too many of them have a score of 0.

    It lies halfway down to the next lower score of any item, as that of `least_threshold` lies halfway up.

    Args:
        risky: (n,) scores in [0, 1] of the risky items.
        scores: (m,) scores of all items.
        needed: in 1..n.
    """
    lowest = float(risky.sort(descending=True).values[needed - 1])
    below = scores[scores < lowest]
    threshold = _halfway(lowest, below.max().item() if len(below) else 0.0)
    return threshold if threshold > 0 else None


def choose_operating_point(
    scores: Tensor, levels: Tensor, *, false_positive_rate: float, data: str
) -> OperatingPoint | None:
    """The least threshold that flags at most a given share of the safe items; None, with a warning, if there is none.

    See `least_threshold`.

    Args:
        scores: (n,) calibrated P(unsafe), as the scorer gives it for the image alone.
        levels: (n,) int64 labels, 0 is safe, -100 unlabelled.
        false_positive_rate: the share of safe items that may be flagged, in (0, 1).
        data: what the point says it was chosen on.
    """
    safe = scores[levels == 0].sort(descending=True).values
    least = fewest_items(false_positive_rate)
    if len(safe) < least:
        LOGGER.warning(
            "no operating point, so the default threshold stays: %d safe tune rows with an image, at least %d are "
            "needed to see %.3g %% of false positives", len(safe), least, 100 * false_positive_rate,
        )  # fmt: skip
        return None
    allowed = math.floor(round(false_positive_rate * len(safe), 6))
    threshold = least_threshold(safe, scores, allowed=allowed)
    if threshold is None:
        LOGGER.warning(
            "no operating point, so the default threshold stays: more than %.3g %% of the safe tune rows have the "
            "score %.3g", 100 * false_positive_rate, float(safe[allowed]),
        )  # fmt: skip
        return None
    flagged, risky = float((safe >= threshold).double().mean()), scores[levels > 0]
    LOGGER.info(
        "operating point: threshold %.4f flags %.2f %% of %d safe and %.1f %% of %d risky tune rows",
        threshold, 100 * flagged, len(safe), 100 * float((risky >= threshold).double().mean()), len(risky),
    )  # fmt: skip
    return OperatingPoint(threshold, false_positive_rate, data, len(safe))


def choose_reading(
    probabilities: Tensor, categories: Tensor, taxonomy: Taxonomy, *, category: str, recall: float, data: str
) -> Reading | None:
    """The greatest P(category) that a share of the category's items reach; None, with a warning, if there is none.

    See `greatest_threshold`. The log tells what share of the clean items is read.

    Args:
        probabilities: (n, categories) of the image alone.
        categories: (n,) int64 labels, -100 unlabelled.
        taxonomy: the names of the categories.
        category: whose images are worth reading.
        recall: the share of its items that is read at least, in (0, 1).
        data: what the reading point says it was chosen on.
    """
    number = taxonomy.category_names.index(category)
    found = probabilities[:, number]
    own = found[categories == number].sort(descending=True).values
    least = fewest_items(1 - recall)
    if len(own) < least:
        LOGGER.warning(
            "no reading point: %d tune rows with an image are labelled %s, at least %d are needed to see %.3g %% "
            "that are not read", len(own), category, least, 100 * (1 - recall),
        )  # fmt: skip
        return None
    threshold = greatest_threshold(own, found, needed=math.ceil(round(recall * len(own), 6)))
    if threshold is None:
        LOGGER.warning("no reading point: P(%s) is 0 for its own tune rows", category)
        return None
    read = found[categories == taxonomy.category_names.index(taxonomy.clean)] >= threshold
    LOGGER.info(
        "reading: P(%s) >= %.4f reads %.1f %% of its %d tune rows, and %.1f %% of %d clean ones",
        category, threshold, 100 * float((own >= threshold).double().mean()), len(own),
        100 * float(read.double().mean()), len(read),
    )  # fmt: skip
    return Reading(category, threshold, data, len(own))


def _halfway(one: float, other: float) -> float:
    return one + (other - one) / 2
