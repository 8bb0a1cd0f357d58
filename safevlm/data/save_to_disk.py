"""Reads what `save_to_disk` of the datasets library wrote: Arrow streams, and JSON that names them.

They are read with pyarrow: the datasets library follows every path in the JSON and trusts the streams' offsets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safevlm.data.safe_path import MAX_JSON, file_inside, folder_inside, text_inside
from safevlm.errors import DataError
from safevlm.printable import shortened

STATE = "state.json"
"""Of one split: its name and its files."""

SPLITS = "dataset_dict.json"
"""Of several: their names, which are those of their folders."""

ROWS_PER_SHARD = 1024


def is_saved(folder: str) -> bool:
    """Whether a folder holds a saved data set."""
    return any(os.path.lexists(os.path.join(folder, name)) for name in (STATE, SPLITS))


def saved_splits(folder: str) -> dict[str, SavedSplit] | SavedSplit:
    """The split in a folder, or the splits in its subfolders by name.

    Raises:
        DataError: if the JSON is malformed or names files outside the folder.
    """
    if os.path.lexists(os.path.join(folder, STATE)):
        return _split(folder)
    names = _object(folder, SPLITS).get("splits")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder}: {SPLITS} has no list of names in 'splits'; save the data set again")
    return {name: _split(folder_inside(folder, name, SPLITS)) for name in names}


@dataclass(frozen=True)
class SavedSplit:
    """The rows of one split.

    Args:
        folder: where it is.
        split: its name, if it has one.
        files: paths of its Arrow streams, in order.
    """

    folder: str
    split: str | None
    files: tuple[str, ...]

    @property
    def num_shards(self) -> int:
        """Runs of about `ROWS_PER_SHARD` rows."""
        return max(1, -(-self._rows // ROWS_PER_SHARD))

    def tables(self, number: int, rows: int) -> Iterator[Any]:
        """A shard's record batches, each of at most so many rows; raises what pyarrow does on damaged files."""
        size, longer = divmod(self._rows, self.num_shards)
        start = number * size + min(number, longer)
        stop = start + size + (number < longer)
        first = 0
        for batch in self._batches():
            begin, end = max(start - first, 0), min(stop - first, batch.num_rows)
            for offset in range(begin, end, rows):
                yield batch.slice(offset, min(rows, end - offset))
            first += batch.num_rows
            if first >= stop:
                break

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema, the same in all files; None without rows."""
        schemas = []
        for path in self.files:
            with _opened(path) as reader:
                schemas.append(reader.schema)
        for path, schema in zip(self.files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise DataError(f"{path}: has other columns than {self.files[0]}; save the data set again")
        return schemas[0] if self._rows else None

    @cached_property
    def _rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches())

    def _batches(self) -> Iterator[Any]:
        for path in self.files:
            with _opened(path) as reader:
                yield from reader


def checked(batch: Any) -> Any:
    """The record batch, after a check that its offsets stay inside it. Raises ArrowInvalid if one does not.

    Strings that are no UTF-8 pass.
    """
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for column in batch.columns:
            _viewed(column).validate(full=True)
    return batch


def _viewed(column: Any) -> Any:
    """An array with bytes instead of strings."""
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_dictionary(column.type):  # these and what holds them have no view
        return pa.DictionaryArray.from_arrays(column.indices, _viewed(column.dictionary), safe=False)
    if t.is_struct(column.type):
        column.validate()
        names = [field.name for field in column.type]
        return pa.StructArray.from_arrays([_viewed(column.field(n)) for n in range(len(names))], names)
    return column.view(_bytes(column.type))


def _bytes(kind: Any) -> Any:
    """A type with bytes instead of strings."""
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, pa.binary_view())
    if t.is_struct(kind):
        return pa.struct([field.with_type(_bytes(field.type)) for field in kind])
    for is_kind, make in ((t.is_list, pa.list_), (t.is_large_list, pa.large_list)):
        if is_kind(kind):
            return make(kind.value_field.with_type(_bytes(kind.value_type)))
    if t.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_bytes(kind.value_type)), kind.list_size)
    return kind


def _opened(path: str) -> Any:
    """A reader of the stream; its rows stay on the disk until they are looked at."""
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(path))


def _split(folder: str) -> SavedSplit:
    state = _object(folder, STATE)
    files, split = state.get("_data_files"), state.get("_split")
    listed = files if isinstance(files, list) else []
    told = [file.get("filename") if isinstance(file, dict) else None for file in listed]
    names = [name for name in told if isinstance(name, str)]
    if not names or len(names) < len(told) or not isinstance(split, str | None):
        raise DataError(f"{folder}: {STATE} does not name its files; save the data set again")
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder}: {STATE} names a selection of rows, as versions before 2.0 wrote it; load and save it again"
        )
    return SavedSplit(folder, split, tuple(file_inside(folder, name, STATE) for name in names))


def _object(folder: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text_inside(folder, name, MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{folder}: {name} is no JSON ({shortened(str(error))}); save the data set again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{folder}: {name} holds no object; save the data set again")
    return value
