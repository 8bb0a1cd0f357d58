"""Intervals of items that are not independent: a cluster bootstrap over things and templates.

Items that show one thing, or ask in one template, succeed and fail together: 750 items of 17 drawings are
no 750 observations. A replicate therefore draws whole things, and whole templates, with replacement; an item
counts as often as its thing times as often as its template was drawn (the pigeonhole bootstrap of Owen 2007,
Annals of Applied Statistics 1:386). It errs on the wide side: the variance of items that do not cluster at all
is counted up to three times, so that their interval is up to 1.7 times too wide. Head scores see no question,
and resample things alone.

A bootstrap of items that all agree is empty, and one of few clusters is narrow by chance. No interval here is
narrower than that of independent items: Wilson's, Newcombe's or DeLong's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safevlm.estimate import Z95, Estimate, proportion
from safevlm.evals.metrics import auroc

REPLICATES = 2000
"""Replicates of a bootstrap: the ends of a 95 % interval then rest on 50 replicates each."""
SEED = 0
"""Of the replicates, so that the same items give the same interval."""

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClusteredEstimate(Estimate):
    """An estimate with a 95 % interval over clusters.

    Args:
        things: different things, or phrases, among the items.
        templates: different question templates among them; 0 where no question plays a part.
    """

    things: int
    templates: int


def clustered_proportion(
    hits: Sequence[bool], things: Sequence[str], templates: Sequence[str] | None = None
) -> ClusteredEstimate:
    """Share of hits, one entry per item in each argument; raises ValueError for no items."""
    wilson = proportion(sum(hits), len(hits))
    return _widened(wilson, _means(np.asarray(hits, dtype=np.float64), things, templates), things, templates)


def clustered_mean(
    values: Sequence[float], things: Sequence[str], templates: Sequence[str] | None = None
) -> ClusteredEstimate:
    """Mean of finite values, one entry per item in each argument.

    The interval of independent items is the normal one of the standard error (with n - 1; the value alone for n = 1).

    Raises:
        ValueError: no values, or one that is not finite.
    """
    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all():
        raise ValueError(
            f"{len(found)} values, {int((~np.isfinite(found)).sum())} of them not finite: no mean"
        )
    mean = float(found.mean())
    error = float(found.std(ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    normal = Estimate(mean, mean - Z95 * error, mean + Z95 * error, len(found))
    return _widened(normal, _means(found, things, templates), things, templates)


def clustered_difference(
    before: Sequence[bool],
    after: Sequence[bool],
    things: Sequence[str],
    templates: Sequence[str] | None = None,
) -> ClusteredEstimate:
    """Share of hits `before` minus share `after`, paired item by item: in [-1, 1], positive where hits were lost.

    The interval of independent items is Newcombe's square-and-add (1998, Statistics in Medicine 17:873) of
    the Wilson intervals of the items lost and the items won.

    Raises:
        ValueError: no items.
    """
    change = np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)
    lost = proportion(int((change > 0).sum()), len(change))
    won = proportion(int((change < 0).sum()), len(change))
    value = lost.value - won.value
    newcombe = Estimate(
        value,
        max(-1.0, value - math.hypot(lost.value - lost.low, won.high - won.value)),
        min(1.0, value + math.hypot(lost.high - lost.value, won.value - won.low)),
        len(change),
    )
    return _widened(newcombe, _means(change, things, templates), things, templates)


def clustered_gap(
    first: Sequence[bool], first_things: Sequence[str], second: Sequence[bool], second_things: Sequence[str]
) -> ClusteredEstimate:
    """Share of hits of `first` minus that of `second`, in [-1, 1]: other items of the same things, which are resampled together.

    The interval of independent items is Newcombe's for independent shares (1998, Statistics in Medicine 17:873).

    Raises:
        ValueError: no items on a side.
    """
    one, other = proportion(sum(first), len(first)), proportion(sum(second), len(second))
    value = one.value - other.value
    newcombe = Estimate(
        value,
        max(-1.0, value - math.hypot(one.value - one.low, other.high - other.value)),
        min(1.0, value + math.hypot(one.high - one.value, other.value - other.low)),
        len(first) + len(second),
    )
    things = [*first_things, *second_things]
    names = np.unique(np.asarray(things, dtype=np.str_))
    draws = _draws(np.random.default_rng(SEED), len(names))
    kept, shares = np.ones(REPLICATES, dtype=bool), []
    for hits, own in ((first, first_things), (second, second_things)):
        where = np.searchsorted(names, np.asarray(own, dtype=np.str_))
        sizes = draws @ np.bincount(where, minlength=len(names))
        sums = draws @ np.bincount(where, np.asarray(hits, dtype=np.float64), len(names))
        kept &= sizes > 0
        shares.append(sums / np.maximum(sizes, 1))
    return _widened(newcombe, (shares[0] - shares[1])[kept], things, None)


def clustered_auroc(
    scores: Sequence[float], labels: Sequence[bool], things: Sequence[str]
) -> ClusteredEstimate:
    """P(score of a positive > score of a negative), ties one half; things of both classes are resampled.

    Raises:
        ValueError: as `safevlm.evals.metrics.auroc`.
    """
    delong = auroc(scores, labels)
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    first, second = (_membership([t for t, has in zip(things, kind, strict=True) if has])
                     for kind in (truth, ~truth))  # fmt: skip
    over = values[truth][:, None] - values[~truth][None, :]
    wins = first.T @ ((np.sign(over) + 1) / 2) @ second  # (things, things): pairs won
    rng = np.random.default_rng(SEED)
    left, right = _draws(rng, first.shape[1]), _draws(rng, second.shape[1])
    pairs = (left @ first.sum(0)) * (right @ second.sum(0))
    areas = ((left @ wins) * right).sum(1) / pairs
    return _widened(delong, areas, things, None)


def _means(values: _Array, things: Sequence[str], templates: Sequence[str] | None) -> _Array:
    """The mean of each replicate; one that draws no item is left out."""
    rows, columns = _membership(things), _membership(templates or [""] * len(values))
    rng = np.random.default_rng(SEED)
    by_thing, by_template = _draws(rng, rows.shape[1]), _draws(rng, columns.shape[1])
    totals, counts = rows.T @ (values[:, None] * columns), rows.T @ columns  # (things, templates)
    sums = ((by_thing @ totals) * by_template).sum(1)
    sizes = ((by_thing @ counts) * by_template).sum(1)
    means: _Array = sums[sizes > 0] / sizes[sizes > 0]
    return means


def _membership(names: Sequence[str]) -> _Array:
    """(items, clusters): 1 where the item is of the cluster."""
    found, where = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    return np.eye(len(found))[where]


def _draws(rng: np.random.Generator, clusters: int) -> _Array:
    """(replicates, clusters): how often each cluster is drawn."""
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), REPLICATES).astype(np.float64)


def _widened(
    independent: Estimate, replicates: _Array, things: Sequence[str], templates: Sequence[str] | None
) -> ClusteredEstimate:
    """The estimate with the union of both intervals."""
    low, high = np.percentile(replicates, [2.5, 97.5]).tolist()
    return ClusteredEstimate(
        independent.value,
        min(independent.low, low),
        max(independent.high, high),
        independent.n,
        things=len(set(things)),
        templates=len(set(templates or ())),
    )
