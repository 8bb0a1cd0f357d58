"""Counts all rows of a scan, and chooses those that a page lists."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safevlm.results.parts import iterate_parts
from safevlm.results.schema import ERROR, UNDECIDED

STEPS = 1000  # of the threshold slider
COUNTED = ("status", "level", "category", "model", "source")
RANKS = {"unsafe": 0, "undecided": 1, "safe": 2}


@dataclass
class Overview:
    """Counts over every row.

    Args:
        edges: rising, 0 first and 1 last: where the threshold can stand.
        bins: one per edge, the rows with edge <= score < the next edge.
        total: rows.
        flagged, safe: rows with a score and the verdict unsafe or safe.
        counts: status, level, category, model, source -> value -> rows; rows without a value are left out.
        listed: int64, numbers of the rows that a page lists, in its order: unsafe by falling score,
            undecided, safe by falling score; errors have a table of their own.
    """

    edges: list[float]
    bins: list[int]
    total: int = 0
    flagged: int = 0
    safe: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    listed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def undecided(self) -> int:
        """Rows that were read and got no score."""
        return self.counts["status"][UNDECIDED]

    @property
    def errors(self) -> int:
        """Rows whose image could not be read."""
        return self.counts["status"][ERROR]


def survey(rows_folder: Path, *, thresholds: Collection[float], limit: int) -> Overview:
    """Count every row, in memory that does not grow with them.

    Args:
        rows_folder: holds `part-*.parquet`.
        thresholds: the slider can stand at each of them, besides at its thousandths.
        limit: most rows that are listed.
    """
    edges = sorted({*(step / STEPS for step in range(STEPS + 1)), *thresholds})
    overview = Overview(edges, [0] * len(edges))
    first = _First(limit)
    columns = ("verdict", "score", *COUNTED)
    for number, row in enumerate(iterate_parts(rows_folder, columns)):
        overview.total += 1
        for name, counts in overview.counts.items():
            if row[name] is not None:
                counts[row[name]] += 1
        if row["status"] == ERROR:
            continue
        score = row["score"]
        if score is not None:
            overview.bins[bisect_right(edges, score) - 1] += 1
            overview.flagged += row["verdict"] == "unsafe"
            overview.safe += row["verdict"] == "safe"
        first.add(RANKS[row["verdict"]], -1.0 if score is None else score, number)
    overview.listed = first.numbers()
    return overview


class _First:
    """The numbers of the `limit` rows that come first, among any number of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ranks, self.scores, self.rows = array("b"), array("d"), array("q")

    def add(self, rank: int, score: float, number: int) -> None:
        self.ranks.append(rank)
        self.scores.append(score)
        self.rows.append(number)
        if len(self.rows) >= 2 * self.limit:
            self._cut()

    def numbers(self) -> np.ndarray:
        self._cut()
        return np.array(self.rows, np.int64)

    def _cut(self) -> None:
        order = np.lexsort((np.array(self.rows), -np.array(self.scores), np.array(self.ranks)))[: self.limit]
        self.ranks = array("b", np.array(self.ranks)[order])
        self.scores = array("d", np.array(self.scores)[order])
        self.rows = array("q", np.array(self.rows)[order])
