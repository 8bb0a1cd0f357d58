"""Parquet files with pictures: bytes, paths, or the Hugging Face Image layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from safevlm.data import storage
from safevlm.data.columns import Choice, Columns
from safevlm.data.source import Item, Shard, ShardError
from safevlm.errors import DataError, MissingExtraError

SUFFIXES = (".parquet", ".pq")
ROWS_PER_SHARD = 1024
"""Row groups that follow one another are one shard until they have as many rows."""

ROWS_PER_BATCH = 16
_BUFFER = 1 << 20


class ParquetSource:
    """Pictures in a Parquet file, a folder of them, or a glob.

    A shard is a row group, or several small ones that follow one another. Paths in the data are
    relative to the folder that the file is in, and nothing outside it is read.

    Args:
        url: local or remote.
        image, text, id: the columns; those left out are recognised.
    """

    def __init__(
        self, url: str, *, image: str | None = None, text: str | None = None, id: str | None = None
    ) -> None:
        self.url = storage.canonical(url)
        self.choice = Choice(image, text, id)
        said = "&".join(f"{k}={v}" for k, v in (("image", image), ("text", text), ("id", id)) if v)
        self.uri = f"parquet:{self.url}{f'?{said}' if said else ''}"

    def shards(self) -> list[Shard]:
        """`file.parquet:3` is its row group 3, `file.parquet:3-5` three of them; the name alone, a bad file.

        Raises:
            DataError: no files, or none that can be read: the first one's reason.
        """
        shards: list[Shard] = []
        errors: list[DataError] = []
        for name, url in self._files.items():
            stamp = storage.fingerprint(url)
            try:
                with _opened(url, name) as file:
                    columns = self._columns(file, name)
                    shards += _planned(file, name, f"{stamp}-{storage.digest(columns.names)}", columns)
            except ShardError as error:
                errors.append(error)
                shards.append(Shard(name, stamp))
        if errors and len(errors) == len(shards):
            raise DataError(str(errors[0]))
        if not any(shard.images != 0 for shard in shards):
            raise DataError(f"{self.url}: has no rows; check that it was written to the end")
        return shards

    def read(self, shard: Shard) -> Iterator[Item]:
        """The rows' pictures. Raises ShardError where the file cannot be read, or not further."""
        files = self._files
        name, _, groups = (shard.name, "", "") if shard.name in files else shard.name.rpartition(":")
        if name not in files:
            raise ShardError(f"{shard.name}: no such file; it was removed since the scan began")
        url = files[name]
        with _opened(url, name) as file:
            columns = self._columns(file, name)
            first, _, last = groups.partition("-")
            chosen = range(int(first), int(last or first) + 1) if groups else range(file.num_row_groups)
            row = sum(file.metadata.row_group(group).num_rows for group in range(chosen.start))
            root = storage.ImageRoot(storage.parent(url))
            for record in _records(file, chosen, columns):
                yield from _items(record, columns, root, f"{name}:{row}")
                row += 1

    @cached_property
    def _files(self) -> dict[str, str]:
        return storage.matching(self.url, SUFFIXES)

    def _columns(self, file: Any, name: str) -> Columns:
        schema = file.schema_arrow
        types = {field.name: _shortened(field.type) for field in schema}
        try:
            return self.choice.columns({field.name: _kind(field.type) for field in schema}, types, name)
        except DataError as error:
            raise ShardError(str(error)) from error


def _planned(file: Any, name: str, stamp: str, columns: Columns) -> Iterator[Shard]:
    """Runs of row groups, each with `ROWS_PER_SHARD` rows or more, but for the last."""
    single = not _is_list(file.schema_arrow.field(columns.image).type)
    first, rows = 0, 0
    for group in range(file.num_row_groups):
        rows += file.metadata.row_group(group).num_rows
        if rows >= ROWS_PER_SHARD or group == file.num_row_groups - 1:
            run = f"{first}" if first == group else f"{first}-{group}"
            yield Shard(f"{name}:{run}", stamp, rows if single or not rows else None)
            first, rows = group + 1, 0


def _records(file: Any, groups: range, columns: Columns) -> Iterator[dict[str, Any]]:
    batches = file.iter_batches(
        batch_size=ROWS_PER_BATCH, row_groups=list(groups), columns=columns.names, use_threads=False
    )
    for batch in batches:
        yield from _lenient(batch, columns).to_pylist()


def _lenient(batch: Any, columns: Columns) -> Any:
    """Words and ids as bytes: Parquet does not promise that strings are UTF-8."""
    import pyarrow as pa

    for name in {columns.text, columns.id} - {columns.image, None}:
        index = batch.schema.get_field_index(name)
        if _kind(batch.column(index).type) == "string" and not _is_list(batch.column(index).type):
            batch = batch.set_column(index, name, batch.column(index).cast(pa.binary()))
    return batch


def _items(record: dict[str, Any], columns: Columns, root: storage.ImageRoot, name: str) -> Iterator[Item]:
    id, text = columns.id_of(record, name), columns.text_of(record)
    for number, (data, error) in enumerate(columns.pictures_of(record, root, name)):
        yield Item(id, number, data, error, text)


def _kind(kind: Any) -> str:
    """What a column of this type may hold, in the words of `Choice.columns`."""
    import pyarrow.types as t

    kind = getattr(kind, "storage_type", kind)  # an extension type
    if t.is_dictionary(kind):
        kind = kind.value_type
    if _is_list(kind):
        inner = _kind(kind.value_type)
        return inner if inner in ("picture", "string") and not _is_list(kind.value_type) else "words"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return "picture"
    if t.is_struct(kind):
        fields = {field.name: _kind(field.type) for field in kind}
        return "picture" if fields.get("bytes") == "picture" else "other"
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "string"
    return "integer" if t.is_integer(kind) else "other"


def _is_list(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _shortened(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:60]}…"


@contextmanager
def _opened(url: str, name: str) -> Iterator[Any]:
    """A ParquetFile that reads page by page; what is wrong with it, now or later, is a ShardError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    try:
        with storage.open_binary(url) as raw:
            yield pq.ParquetFile(raw, pre_buffer=False, buffer_size=_BUFFER)
    except (*storage.failures(), pa.ArrowException) as error:
        raise ShardError(
            f"{name}: cannot be read ({storage.reason(error)}); download or write it again"
        ) from error
