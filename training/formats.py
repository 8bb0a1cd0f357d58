"""Files and folders -> raw rows, one reader per form; nothing is judged here beyond what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safevlm.errors import DataError, MissingExtraError
from safevlm.taxonomy import Taxonomy

# The order of the authors' numbers (arXiv 2405.13581, released data): `safe_type` and `safe_level`.
AUTHORS_TYPES = ("politics", "illegal", "insults", "fairness", "privacy", "misleading", "clean")
AUTHORS_LEVELS = 4

SPLITS = {
    "train": "train",
    "tune": "tune",
    "val": "tune",
    "validation": "tune",
    "dev": "tune",
    "test": "test",
}
"""Names of splits that are read -> what they are used as; test rows are never used in training."""


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
    """

    file: Path
    number: int
    values: dict[str, Any]
    error: BadRowError | None = None


def read_rows(path: Path, taxonomy: Taxonomy) -> Iterator[RawRow]:
    """The rows of a Parquet, JSONL or JSON file, of a folder of Parquet files, or of folders of classes.

    Raises:
        DataError: no such path, another kind of file, or a file that is broken as a whole.
        MissingExtraError: Parquet without pyarrow.
    """
    if path.is_dir():
        shards = sorted(path.glob("*.parquet"))
        if not shards:
            yield from _class_folders(path, taxonomy)
        for shard in shards:
            yield from _parquet(shard)
        return
    readers: dict[str, Callable[[Path], Iterator[RawRow]]] = {
        ".parquet": _parquet,
        ".jsonl": partial(_json_lines, taxonomy=taxonomy),
        ".json": partial(_json_list, taxonomy=taxonomy),
    }
    if not path.is_file():
        raise DataError(
            f"{path}: no such table; give a .parquet, .jsonl or .json file, or a folder of classes"
        )
    if path.suffix not in readers:
        raise DataError(
            f"{path}: tables end in {', '.join(readers)}; convert it, or give a folder of classes"
        )
    yield from readers[path.suffix](path)


def _parquet(path: Path) -> Iterator[RawRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = [name for name in file.schema_arrow.names if name in COLUMNS]
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=wanted):
            for values in batch.to_pylist():
                number += 1
                yield RawRow(path, number, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is not a whole Parquet file ({error}); write or download it again"
        ) from error


def _json_lines(path: Path, taxonomy: Taxonomy) -> Iterator[RawRow]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _json_row(path, number, json.loads(line), taxonomy)
                except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
                    yield RawRow(path, number, {}, BadRowError("(line)", f"is not JSON ({error})"))


def _json_list(path: Path, taxonomy: Taxonomy) -> Iterator[RawRow]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); for one object per line, name it .jsonl") from error
    if not isinstance(values, list):
        raise DataError(f"{path}: holds no list of rows but a {type(values).__name__}; write [{{...}}, ...]")
    for number, value in enumerate(values, 1):
        yield _json_row(path, number, value, taxonomy)


def _json_row(path: Path, number: int, value: Any, taxonomy: Taxonomy) -> RawRow:
    if not isinstance(value, dict):
        return RawRow(path, number, {}, BadRowError("(row)", f"is a {type(value).__name__}, not an object"))
    try:
        authors = AUTHORS_COLUMNS & set(value)
        return RawRow(path, number, _from_authors(value, taxonomy) if authors else value)
    except BadRowError as error:
        return RawRow(path, number, {}, error)


COLUMNS = ("image", "prompt", "response", "risk_level", "risk_category", "split")
"""The documented table; other columns are left alone."""

AUTHORS_COLUMNS = {"safe_type", "safe_level", "conversations"}


def _from_authors(value: dict[str, Any], taxonomy: Taxonomy) -> dict[str, Any]:
    """A row of the authors' (and LLaVA's) JSON in the table's columns; the first exchange is taken."""
    row = {"image": value.get("image"), "split": value.get("split")}
    turns = value.get("conversations") or []
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise BadRowError("conversations", "is not a list of {from, value} objects")
    for speaker, column in (("human", "prompt"), ("gpt", "response")):
        text = next((turn.get("value") for turn in turns if turn.get("from") == speaker), None)
        row[column] = text.replace("<image>", "").strip() if isinstance(text, str) else text
    kind = _authors_number(value, "safe_type", len(AUTHORS_TYPES))
    level = _authors_number(value, "safe_level", AUTHORS_LEVELS)
    if level is not None and len(taxonomy.levels) != AUTHORS_LEVELS:
        raise BadRowError(
            "safe_level",
            f"is one of {AUTHORS_LEVELS} levels, taxonomy {taxonomy.name!r} has {len(taxonomy.levels)}",
        )
    row["risk_category"] = None if kind is None else AUTHORS_TYPES[kind]
    row["risk_level"] = None if level is None else taxonomy.levels[level]
    return row


def _authors_number(value: dict[str, Any], column: str, count: int) -> int | None:
    number = value.get(column)
    if number is None:
        return None
    if isinstance(number, str) and number.strip().isdigit():
        number = int(number)
    if type(number) is not int or not 0 <= number < count:
        raise BadRowError(column, f"is {number!r}, a whole number in 0..{count - 1} is needed")
    return number


def _class_folders(root: Path, taxonomy: Taxonomy) -> Iterator[RawRow]:
    """`root[/<split>]/<category>[/<level>]/file`: a category's own files are safe if clean, else of the top level."""
    for file in sorted(path for path in root.rglob("*") if not path.is_dir()):
        parts, number = file.relative_to(root).parts, 1  # a file is its own row
        if any(part.startswith(".") for part in parts):
            continue
        split = SPLITS.get(parts[0]) if parts[0] not in taxonomy.category_names else None
        folders = parts[1:-1] if split else parts[:-1]
        if not 1 <= len(folders) <= 2:
            reason = "does not stand in <category>/ or <category>/<level>/"
            yield RawRow(file, number, {}, BadRowError("(path)", reason))
            continue
        top = taxonomy.safe_level if folders[0] == taxonomy.clean else taxonomy.levels[-1]
        values = {"image": parts[-1], "risk_category": folders[0], "risk_level": top, "split": split}
        if len(folders) == 2:
            values["risk_level"] = folders[1]
        yield RawRow(file, number, values)
