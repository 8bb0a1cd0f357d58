"""Counts what a table holds that is not trained on, to log it once and not per row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from .raw import RawRow

LOGGER = logging.getLogger(__name__)


class Tally:
    """Counts rows as they pass; `log` logs what was not used of them."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.unread: Counter[tuple[str, str]] = Counter()

    def count(self, rows: Iterable[RawRow]) -> Iterator[RawRow]:
        """Count what rows have that is not used, and pass them on unchanged."""
        for row in rows:
            self.left_out.update(row.left_out)
            self.unread.update(row.unread)
            yield row

    def log(self, path: Path) -> None:
        """Log what was left out of conversations, and columns that may have been meant by a documented one."""
        for what, rows in self.left_out.items():
            LOGGER.warning("%s: %d conversations have %s, which is not trained on", path, rows, what)
        for (column, name), rows in self.unread.items():
            LOGGER.warning(
                "%s: %d rows without %s have a column %r, which is not read; rename it %s if it is that",
                path,
                rows,
                column,
                name,
                column,
            )
