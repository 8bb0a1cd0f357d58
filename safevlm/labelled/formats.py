"""Files and folders -> raw rows, one reader per form; nothing is judged here beyond what cannot be read."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safevlm.data.boundary import parser_errors
from safevlm.errors import DataError, MissingExtraError
from safevlm.taxonomy import Taxonomy

from .class_folders import read_class_folders
from .columns import checked_names, is_wanted, table_row
from .marks import COLUMNS as MARKS
from .marks import is_mark
from .raw import SPLITS, BadRowError, RawRow

LOGGER = logging.getLogger(__name__)

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d+-of-\d+\.parquet", re.IGNORECASE)
"""How the datasets library names its files: by their split."""

_OTHER_ENCODINGS = (
    (b"\x1f\x8b", "gzip; unpack it"),
    (b"BZh", "bzip2; unpack it"),
    (b"\xfd7zXZ", "xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd; unpack it"),
    (b"PK\x03\x04", "a zip file; unpack it"),
    (b"PAR1", "Parquet; name it .parquet"),
)
_WIDE = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16 and, little-endian, UTF-32."""


def read_rows(path: Path, taxonomy: Taxonomy) -> Iterator[RawRow]:
    """The rows of a Parquet, JSONL or JSON file, of a folder of Parquet files, or of folders of classes.

    Raises:
        DataError: no such path, another kind of file, or a file that is broken as a whole.
        MissingExtraError: Parquet without pyarrow.
    """
    if path.is_dir() and not any(path.glob("*.parquet")):
        yield from read_class_folders(path, taxonomy)
        return
    for row in _shards(path) if path.is_dir() else _file(path):
        marked = row.error is not None or is_mark(row.values)
        yield checked_names(row) if marked else table_row(row, taxonomy)


def _file(path: Path) -> Iterator[RawRow]:
    readers: dict[str, Callable[[Path], Iterator[RawRow]]] = {
        ".parquet": _parquet,
        ".jsonl": _json_lines,
        ".json": _json_list,
    }
    if not path.is_file():
        raise DataError(
            f"{path}: no such table; give a .parquet, .jsonl or .json file, or a folder of classes"
        )
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path}: tables end in {', '.join(readers)}; convert it, or give a folder of classes"
        )
    yield from readers[path.suffix.lower()](path)


def _shards(folder: Path) -> Iterator[RawRow]:
    """The rows of a folder's Parquet files; a name such as test-00000-of-00001.parquet tells a split, too."""
    shards = sorted(folder.glob("*.parquet"))
    others = sum(not entry.name.startswith(".") for entry in folder.iterdir()) - len(shards)
    if others:
        LOGGER.warning(
            "%s: reads its %d Parquet files, not the %d other entries", folder, len(shards), others
        )
    for shard in shards:
        named = _SHARD.fullmatch(shard.name)
        for row in _parquet(shard):
            if named and not row.values.get("split") and row.error is None:
                row = replace(row, values={**row.values, "split": named[1]})
            yield row


def _parquet(path: Path) -> Iterator[RawRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error

    def broken(error: Exception) -> DataError:
        return DataError(f"{path}: is not a whole Parquet file ({error}); write or download it again")

    with parser_errors(broken):
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = {name for name in names if is_wanted(name) or name in MARKS}
            others = {field.name for field in file.schema_arrow if _may_be_misplaced(field.type)} - wanted
            if twice := sorted(name for name in wanted if names.count(name) > 1):
                raise DataError(f"{path}: has several columns {', '.join(twice)}; give each its own name")
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=sorted(wanted | others)):
                for place in range(batch.num_rows):
                    number += 1
                    yield _parquet_row(path, number, batch, place, others)


def _parquet_row(path: Path, number: int, batch: Any, place: int, others: set[str]) -> RawRow:
    """`others`: columns that are looked at for images and labels in the wrong place; what they hold may be broken."""
    values: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[place].as_py()
        except (UnicodeDecodeError, ValueError, OverflowError) as error:  # text that is no UTF-8, odd dates
            if name in others:
                continue
            return RawRow(path, number, {}, BadRowError(name, f"cannot be read ({error})"))
    return RawRow(path, number, values)


def _may_be_misplaced(kind: Any) -> bool:
    """Whether a Parquet column of a type can hold images or labels in the wrong place, which makes a row bad."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _may_be_misplaced(kind.value_type)
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_struct)
    return any(is_kind(kind) for is_kind in texts)


def _json_lines(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as lines:
        _refuse_other_encodings(path, lines.read(8), wide=True)
        lines.seek(0)
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _json_row(path, number, _parsed(line))
                except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError, too
                    yield RawRow(path, number, {}, BadRowError("(line)", f"is not JSON ({error})"))


def _json_list(path: Path) -> Iterator[RawRow]:
    data = path.read_bytes()
    _refuse_other_encodings(path, data[:8], wide=False)
    try:
        values = _parsed(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); for one object per line, name it .jsonl") from error
    if not isinstance(values, list):
        raise DataError(f"{path}: holds no list of rows but a {type(values).__name__}; write [{{...}}, ...]")
    for number, value in enumerate(values, 1):
        yield _json_row(path, number, value)


def _refuse_other_encodings(path: Path, head: bytes, *, wide: bool) -> None:
    """`wide`: whether lines are split at bytes, so that UTF-16 and UTF-32 cannot be read."""
    for magic, what in _OTHER_ENCODINGS:
        if head.startswith(magic):
            raise DataError(f"{path}: is {what}")
    if wide and (head.startswith(_WIDE) or b"\0" in head):
        raise DataError(f"{path}: is UTF-16 or UTF-32; write it as UTF-8")


@dataclass(frozen=True)
class _Repeated:
    """An object that has a key twice, of which json would silently keep one value."""

    key: str


def _parsed(data: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                return _Repeated(key)
            found[key] = value
        return found

    return json.loads(data, object_pairs_hook=once)


def _json_row(path: Path, number: int, value: Any) -> RawRow:
    if isinstance(value, _Repeated):
        return RawRow(path, number, {}, BadRowError(value.key, "stands in the row twice; keep one of them"))
    if not isinstance(value, dict):
        return RawRow(path, number, {}, BadRowError("(row)", f"is a {type(value).__name__}, not an object"))
    return RawRow(path, number, value)
