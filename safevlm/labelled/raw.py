"""A row as it was written, before anything is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLITS = {
    "train": "train",
    "tune": "tune",
    "val": "tune",
    "validation": "tune",
    "dev": "tune",
    "test": "test",
}
"""Names of splits that are read -> what they are used as; test rows are never used in training."""

LABELS = ("risk_level", "risk_category")
AUTHORS = ("safe_type", "safe_level")
"""The labels' columns: the documented ones, and those of the authors' data."""
TURNS = ("conversations", "conversation", "messages")
"""Columns of dialogues."""


class BadRowError(Exception):
    """A row that cannot be used; the caller adds file and row number."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


@dataclass(frozen=True)
class RawRow:
    """One row as it was written.

    Args:
        file: the file that it stands in (the image itself, for folders of classes).
        number: counted from 1 within the file; for JSONL the line.
        values: column -> value in the documented table's columns.
        error: why the row could not be read at all.
        left_out: what of the row is not used, "a system turn" for example; counted over the table.
        unread: (documented column, column that may have been meant by it), where the documented one is empty.
        extra: the values, as text, of the columns in `Layout.extra` that are not empty.
    """

    file: Path
    number: int
    values: dict[str, Any]
    error: BadRowError | None = None
    left_out: tuple[str, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    extra: dict[str, str] = field(default_factory=dict)


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, "", no bytes, no elements, or a struct of such values."""
    if isinstance(value, dict):
        return all(is_empty(part) for part in value.values())
    return value is None or (isinstance(value, str | bytes | list | tuple) and not value)


def whole_number(value: Any) -> int | None:
    """3, 3.0, "3" and "3.0" as 3; None for anything else, booleans included."""
    if isinstance(value, str):
        text = value.strip()
        whole, _, rest = text.removeprefix("-").partition(".")
        plain = whole.isascii() and whole.isdigit() and len(whole) < 20 and not rest.strip("0")
        return int(whole) * (-1 if text.startswith("-") else 1) if plain else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if type(value) is int else None
