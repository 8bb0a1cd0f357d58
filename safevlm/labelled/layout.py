"""How a table is laid out that was not written for training: its own names of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .raw import AUTHORS, LABELS, TURNS, is_empty


@dataclass(frozen=True)
class Layout:
    """Column names, and what is taken of a row with several images; the defaults are the documented table's.

    Args:
        level: the column that is read as `risk_level`.
        extra: columns whose values are kept as text in `LabelledRow.extra`. `risk_category` among them is not
            checked against the taxonomy, and the row's category is -100.
        first_image: whether the first of several images is the row's; False: such a row is bad.
        labels_alone: whether images and levels are all that is wanted of a row, so that a fault in its words, its
            split or labels of another form makes no row bad.
    """

    level: str = LABELS[0]
    extra: tuple[str, ...] = ()
    first_image: bool = False
    labels_alone: bool = False

    @property
    def own(self) -> set[str]:
        """The columns that are read because they are named here."""
        return {self.level, *self.extra} - {*LABELS}

    def documented(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row's values without columns of other names; the column of levels as `risk_level`."""
        found = {name: value for name, value in values.items() if name not in self.own}
        if self.level in self.own:
            found[LABELS[0]] = values.get(self.level)
        return self._without_words(found) if self.labels_alone else found

    def _without_words(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values without words and split; without dialogues and the authors' labels where others serve."""
        unread = {"prompt", "response", "split"}
        if not (is_empty(values.get("image")) and is_empty(values.get("images"))):
            unread |= {*TURNS}
        if not is_empty(values.get(LABELS[0])):
            unread |= {*AUTHORS}
        return {name: value for name, value in values.items() if name not in unread}

    def kept(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The values of `extra` as text, without empty ones."""
        return {name: str(values[name]) for name in self.extra if not is_empty(values.get(name))}
