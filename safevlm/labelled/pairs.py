"""Pairs of prompts, one harmful and one harmless: what a steering direction is fitted on."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.printable import shortened

from .formats import json_lines, json_list
from .raw import BadRowError, RawRow

COLUMNS = ("harmful", "harmless")
LABELLED = ("text", "harmful", "pair_id")
"""Columns of the two forms: a pair in a row, or a prompt in a row with the pair that it belongs to."""

LABELS = {"true": True, "false": False, "1": True, "0": False}
"""What `harmful` may be in the second form, in lower case."""


@dataclass(frozen=True)
class PromptPairs:
    """Prompts in pairs: `harmful[i]` belongs to `harmless[i]`.

    Raises:
        DataError: no pair, as many of one kind as not of the other, an empty text, or a text that stands in several
            pairs: it would be in the fitted and in the held-out part.
    """

    harmful: tuple[str, ...]
    harmless: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.harmful) != len(self.harmless):
            raise DataError(
                f"{len(self.harmful)} harmful and {len(self.harmless)} harmless prompts are no pairs; give as many of both"
            )
        if not self.harmful:
            raise DataError(
                "there are no pairs of prompts; give at least one harmful and one harmless prompt each"
            )
        counts = Counter((*self.harmful, *self.harmless))
        if any(not text.strip() for text in counts):
            raise DataError("a pair has an empty prompt; write both prompts, or leave the pair out")
        if repeated := [text for text, count in counts.items() if count > 1]:
            raise DataError(
                f"{len(repeated)} prompts stand in several places of the pairs, such as {shortened(repeated[0], 80)}; "
                "keep one pair of each"
            )

    def __len__(self) -> int:
        return len(self.harmful)

    @property
    def sha256(self) -> str:
        """Of the texts in their order, 64 hex digits."""
        texts = json.dumps([self.harmful, self.harmless], ensure_ascii=True)
        return hashlib.sha256(texts.encode()).hexdigest()

    def split(self, held_out: int, *, seed: int) -> tuple[PromptPairs, PromptPairs]:
        """Two parts without a common pair, the second one of `held_out` pairs; each in the order of the whole.

        Raises:
            DataError: a part would be empty.
        """
        chosen = set(random.Random(seed).sample(range(len(self)), min(held_out, len(self))))
        kept = [number for number in range(len(self)) if number not in chosen]
        return self._part(kept), self._part(sorted(chosen))

    def _part(self, numbers: Sequence[int]) -> PromptPairs:
        return PromptPairs(
            tuple(self.harmful[number] for number in numbers),
            tuple(self.harmless[number] for number in numbers),
        )


def read_pairs(path: str | Path, *, source: str | None = None, split: str | None = None) -> PromptPairs:
    """Read a JSONL, JSON or CSV file: rows `harmful, harmless`, or rows `text, harmful, pair_id`.

    In the second form `harmful` is true or false, a pair is two rows with one `pair_id`, and rows without one are
    passed over.

    Args:
        source, split: read the rows that have this value in the column of that name; None: all.

    Raises:
        DataError: no such file, another kind of file, a bad row, a missing column, or prompts that are no pairs: see
            `PromptPairs`.
    """
    path = Path(path)
    rows = [row for row in _rows(path) if _wanted(row, source=source, split=split)]
    paired = bool(rows) and COLUMNS[1] in rows[0].values
    texts = _in_one_row(rows) if paired else _joined(rows)
    try:
        return PromptPairs(tuple(pair[0] for pair in texts), tuple(pair[1] for pair in texts))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _rows(path: Path) -> Iterator[RawRow]:
    readers = {".jsonl": json_lines, ".json": json_list, ".csv": _csv}
    if not path.is_file() or path.suffix.lower() not in readers:
        what = "is no table of pairs" if path.is_file() else "no such file"
        raise DataError(
            f"{path}: {what}; give a .jsonl, .json or .csv file with the columns harmful, harmless"
        )
    for row in readers[path.suffix.lower()](path):
        if row.error is not None:
            raise _bad(row, row.error.column, str(row.error))
        yield row


def _csv(path: Path) -> Iterator[RawRow]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, values in enumerate(csv.DictReader(file, strict=True), 1):
                whole = None not in values and None not in values.values()
                error = (
                    None if whole else BadRowError("(row)", "has not as many values as the header has names")
                )
                yield RawRow(path, number, values, error)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not CSV in UTF-8 ({error}); save it so") from error


def _wanted(row: RawRow, **filters: str | None) -> bool:
    return all(value is None or _value(row, name) == value for name, value in filters.items())


def _in_one_row(rows: Sequence[RawRow]) -> list[tuple[str, str]]:
    """(harmful, harmless) of rows with both."""
    return [(_text(row, "harmful"), _text(row, "harmless")) for row in rows]


def _joined(rows: Sequence[RawRow]) -> list[tuple[str, str]]:
    """(harmful, harmless) of rows with one of them, by their `pair_id`, in the order in which the pairs begin."""
    found: dict[str | int, dict[bool, str]] = {}
    for row in rows:
        pair_id = _value(row, "pair_id")
        if pair_id in (None, ""):
            continue
        if not isinstance(pair_id, str | int):
            raise _bad(row, "pair_id", f"is a {type(pair_id).__name__}, not text")
        label = LABELS.get(str(_value(row, "harmful")).lower())
        if label is None:
            raise _bad(row, "harmful", "is neither true nor false; write one of them")
        pair = found.setdefault(pair_id, {})
        if label in pair:
            kind = "harmful" if label else "harmless"
            raise _bad(row, "pair_id", f"{_named(pair_id)} has two {kind} prompts; a pair has one of each")
        pair[label] = _text(row, "text")
    if alone := [pair_id for pair_id, texts in found.items() if len(texts) < 2]:
        missing = "harmful" if False in found[alone[0]] else "harmless"
        raise DataError(
            f"{rows[0].file}: {len(alone)} of {len(found)} pairs have one prompt, such as {_named(alone[0])}, which "
            f"has no {missing} one; a pair needs both"
        )
    return [(texts[True], texts[False]) for texts in found.values()]


def _named(pair_id: str | int) -> str:
    return shortened(str(pair_id), 40)


def _value(row: RawRow, column: str) -> Any:
    if column not in row.values:
        raise _bad(row, column, f"is missing; a row has {', '.join(COLUMNS)}, or {', '.join(LABELLED)}")
    return row.values[column]


def _text(row: RawRow, column: str) -> str:
    value = _value(row, column)
    if not isinstance(value, str) or not value.strip():
        raise _bad(row, column, "is no text; write the prompt")
    return value


def _bad(row: RawRow, column: str, reason: str) -> DataError:
    return DataError(f"{row.file}, row {row.number}, column {column}: {reason}")
