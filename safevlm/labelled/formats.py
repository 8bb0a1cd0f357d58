"""Files and folders -> raw rows, one reader per form; nothing is judged here beyond what cannot be read."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from safevlm.data.boundary import parser_errors
from safevlm.data.json_stream import Element, elements, first_values, parse
from safevlm.data.utf8 import as_utf8
from safevlm.errors import DataError, MissingExtraError
from safevlm.taxonomy import Taxonomy

from .class_folders import read_class_folders
from .columns import checked_names, is_wanted, table_row
from .layout import Layout
from .marks import COLUMNS as MARKS
from .marks import is_mark
from .raw import SPLITS, BadRowError, RawRow

LOGGER = logging.getLogger(__name__)

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d+-of-\d+\.parquet", re.IGNORECASE)
"""How the datasets library names its files: by their split."""

_PARQUET = b"PAR1"
"""First bytes of a Parquet file."""


def read_rows(path: Path, taxonomy: Taxonomy, layout: Layout) -> Iterator[RawRow]:
    """The rows of a Parquet, JSONL or JSON file, of a folder of Parquet files, or of folders of classes.

    JSON and JSONL may be compressed with gzip, bzip2 or xz, and be UTF-8, UTF-16 or UTF-32.

    Raises:
        DataError: no such path, another kind of file, or a file that is broken as a whole.
        MissingExtraError: the file is Parquet, and pyarrow is not installed.
    """
    for row in _rows(path, taxonomy, layout):
        as_it_is = row.error is not None or is_mark(row.values)
        yield checked_names(row, layout) if as_it_is else table_row(row, taxonomy, layout)


def raw_rows(path: Path, columns: Sequence[str]) -> Iterator[RawRow]:
    """The rows of a Parquet, JSONL or JSON file, or of a folder of Parquet files, as they are written.

    Args:
        path: of the table.
        columns: that are read of Parquet beside the documented ones.

    Raises:
        DataError: as for `read_rows`, and for a folder without Parquet files.
        MissingExtraError: the file is Parquet, and pyarrow is not installed.
    """
    layout, suffix = Layout(extra=tuple(columns)), path.suffix.lower()
    if path.is_dir() and any(path.glob("*.parquet")):
        yield from _shards(path, layout)
    elif path.is_file() and suffix == ".parquet":
        yield from _parquet(path, layout)
    elif path.is_file() and suffix in (".jsonl", ".json"):
        yield from (json_lines if suffix == ".jsonl" else json_list)(path)
    else:
        raise DataError(
            f"{path}: no such table; give a .parquet, .jsonl or .json file, or a folder of .parquet files"
        )


def _rows(path: Path, taxonomy: Taxonomy, layout: Layout) -> Iterator[RawRow]:
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from (
            _shards(path, layout) if any(path.glob("*.parquet")) else read_class_folders(path, taxonomy)
        )
    elif not path.is_file():
        raise DataError(
            f"{path}: no such table; give a .parquet, .jsonl or .json file, or a folder of classes"
        )
    elif suffix == ".parquet":
        yield from _parquet(path, layout)
    elif suffix == ".jsonl":
        yield from json_lines(path)
    elif suffix == ".json":
        yield from json_list(path)
    else:
        raise DataError(
            f"{path}: tables end in .parquet, .jsonl, .json; convert it, or give a folder of classes"
        )


def _shards(folder: Path, layout: Layout) -> Iterator[RawRow]:
    """The rows of a folder's Parquet files; a name such as test-00000-of-00001.parquet tells a split, too."""
    shards = sorted(folder.glob("*.parquet"))
    others = sum(not entry.name.startswith(".") for entry in folder.iterdir()) - len(shards)
    if others:
        LOGGER.warning(
            "%s: reads its %d Parquet files, not the %d other entries", folder, len(shards), others
        )
    for shard in shards:
        named = _SHARD.fullmatch(shard.name)
        for row in _parquet(shard, layout):
            if named and not row.values.get("split") and row.error is None:
                row = replace(row, values={**row.values, "split": named[1]})
            yield row


def _parquet(path: Path, layout: Layout) -> Iterator[RawRow]:
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
            wanted = {name for name in names if is_wanted(name) or name in MARKS or name in layout.own}
            others = {field.name for field in file.schema_arrow if _may_be_misplaced(field.type)} - wanted
            if twice := sorted(name for name in wanted if names.count(name) > 1):
                raise DataError(f"{path}: has several columns {', '.join(twice)}; give each its own name")
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=sorted(wanted | others)):
                for index in range(batch.num_rows):
                    number += 1
                    yield _parquet_row(path, number, batch, index, others)


def _parquet_row(path: Path, number: int, batch: Any, index: int, others: set[str]) -> RawRow:
    """`others`: columns that are looked at for images and labels that belong elsewhere; what they hold may be broken."""
    values: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[index].as_py()
        except (UnicodeDecodeError, ValueError, OverflowError) as error:  # text that is no UTF-8, odd dates
            if name in others:
                continue
            return RawRow(path, number, {}, BadRowError(name, f"cannot be read ({error})"))
    return RawRow(path, number, values)


def _may_be_misplaced(kind: Any) -> bool:
    """Whether a Parquet column of a type can hold images or labels that belong into another column, which makes a row bad."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _may_be_misplaced(kind.value_type)
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_struct)
    return any(is_kind(kind) for is_kind in texts)


def json_lines(path: Path) -> Iterator[RawRow]:
    """A row per line; a line that cannot be read is a bad row, and costs no other. Raises DataError for a bad file."""
    try:
        with _opened(path) as file:
            for number, line in enumerate(as_utf8(file), 1):
                if line.strip():
                    try:
                        yield _json_row(path, number, parse(line.removeprefix(codecs.BOM_UTF8).decode()))
                    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError, too
                        yield RawRow(path, number, {}, BadRowError("(line)", f"is not JSON ({error})"))
    except DataError as error:  # of the whole file, which its name is missing from
        raise DataError(f"{path}: {error}") from error


def json_list(path: Path) -> Iterator[RawRow]:
    """The rows of a JSON file that is a list of objects, judged as `json_lines` does; raises DataError."""
    try:
        with _opened(path) as file:
            first, several = first_values(file)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if first == "{" and not several:
        raise DataError(f"{path}: holds no list of rows but an object; write [{{...}}, ...]")
    try:
        with _opened(path) as file:
            for number, element in enumerate(elements(file), 1):
                yield _json_row(path, number, element)
    except DataError as error:
        raise DataError(f"{path}: is not JSON ({error}); for one object per line, name it .jsonl") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            raise DataError("is Parquet; name it .parquet")
        file.seek(0)
        yield file


def _json_row(path: Path, number: int, element: Element) -> RawRow:
    value, error = element.value, None
    if element.repeated is not None:
        error = BadRowError(element.repeated, "stands in the row twice; keep one of them")
    elif element.error:
        error = BadRowError("(row)", f"{element.error}; correct it")
    elif not isinstance(value, dict):
        error = BadRowError("(row)", f"is a {type(value).__name__}, not an object")
    return RawRow(path, number, {} if error else value, error)
