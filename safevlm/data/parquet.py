"""Parquet files with images: bytes, paths, or the Hugging Face Image layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from safevlm.data import storage
from safevlm.data.arrow import columns_of, is_list, items_of
from safevlm.data.boundary import parser_errors
from safevlm.data.columns import Choice, Columns
from safevlm.data.image_root import ImageRoot
from safevlm.data.source import Item, Shard, ShardError
from safevlm.errors import DataError, MissingExtraError

SUFFIXES = (".parquet", ".pq")
ROWS_PER_SHARD = 1024
"""Row groups that follow one another are one shard until they have as many rows."""

ROWS_PER_BATCH = 1
"""Rows that are in memory at a time: a compressed page of a few bytes may hold the same large image many times."""

_BUFFER = 1 << 20


class ParquetSource:
    """Images in a Parquet file, a folder of them, or a glob.

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
        self.uri = storage.uri("parquet", self.url, image=image, text=text, id=id)

    def shards(self) -> list[Shard]:
        """Shards of one or more row groups: `a.parquet:3`, `a.parquet:3-5`; a broken file is one shard, `a.parquet`.

        The shard of a broken file fails when it is read. Once the file is repaired, shards of its row groups replace
        it, and reading it by the name alone gives the whole file.

        Raises:
            DataError: if there are no files, none has rows, none can be read (with the first one's reason), or the
                storage fails for now.
        """
        shards: list[Shard] = []
        errors: list[ShardError] = []
        for name, url in self._files.items():
            stamp = storage.fingerprint(url)
            try:
                with _opened(url, name) as file:
                    columns = columns_of(file.schema_arrow, self.choice, name)
                    shards += _planned(file, name, f"{stamp}-{storage.digest(columns.names)}", columns)
            except ShardError as error:
                if error.__cause__ is not None and storage.may_pass(error.__cause__):
                    raise storage.unreachable(url, error.__cause__) from error
                errors.append(error)
                shards.append(Shard(name, stamp))
        if errors and len(errors) == len(shards):
            raise DataError(str(errors[0]))
        if not shards:
            raise DataError(f"{self.url}: has no rows; check that it was written to the end")
        return shards

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The rows' images. Raises ShardError if the file cannot be read to the shard's end."""
        whole = shard.name in self._files
        name, _, groups = (shard.name, "", "") if whole else shard.name.rpartition(":")
        if name not in self._files:
            raise ShardError(f"{shard.name}: no such file; it was removed since the scan began")
        url = self._files[name]
        with _opened(url, name) as file:
            columns = columns_of(file.schema_arrow, self.choice, name)
            first, _, last = groups.partition("-")
            chosen = range(int(first), int(last or first) + 1) if groups else range(file.num_row_groups)
            counts = _counts(file, name)
            batches = file.iter_batches(
                batch_size=ROWS_PER_BATCH, row_groups=list(chosen), columns=columns.names, use_threads=False
            )
            batches = _complete(batches, sum(counts[group] for group in chosen), name)
            root, row = ImageRoot(storage.parent(url)), sum(counts[: chosen.start])
            yield from items_of(batches, columns, root, name, row, passed_over)

    @cached_property
    def _files(self) -> dict[str, str]:
        return storage.matching(self.url, SUFFIXES)


def _planned(file: Any, name: str, stamp: str, columns: Columns) -> Iterator[Shard]:
    """Consecutive row groups as shards of `ROWS_PER_SHARD` rows or more; the last may have fewer."""
    single = not is_list(file.schema_arrow.field(columns.image).type)
    counts = _counts(file, name)
    first, rows = 0, 0
    for group, count in enumerate(counts):
        rows += count
        if rows >= ROWS_PER_SHARD or (group == len(counts) - 1 and rows):
            run = f"{first}" if first == group else f"{first}-{group}"
            yield Shard(f"{name}:{run}", stamp, rows if single else None)
            first, rows = group + 1, 0


def _counts(file: Any, name: str) -> list[int]:
    """Rows of each row group. Raises ShardError if the file's counts contradict each other, as rows would be missing."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    counts = [int(group.num_rows) for group in groups]
    empty = (group for group in groups if not group.num_rows)
    if (
        min(counts, default=0) < 0
        or sum(counts) != file.metadata.num_rows
        or any(group.column(index).num_values for group in empty for index in range(group.num_columns))
    ):
        raise ShardError(f"{name}: says in two places how many rows it has, and differs; write it again")
    return counts


def _complete(batches: Iterator[Any], rows: int, name: str) -> Iterator[Any]:
    """The batches. Raises ShardError if they have fewer rows than the file says."""
    left = rows
    for batch in batches:
        left -= batch.num_rows
        yield batch
    if left:
        raise ShardError(f"{name}: has {rows - left:,} of the {rows:,} rows that it says; write it again")


@contextmanager
def _opened(url: str, name: str) -> Iterator[Any]:
    """A ParquetFile that reads page by page. Errors in opening it and in the block become a ShardError."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error

    def broken(error: Exception) -> ShardError:
        return ShardError(f"{name}: cannot be read ({storage.reason(error)}); download or write it again")

    with parser_errors(broken), storage.open_binary(url) as raw:
        yield pq.ParquetFile(raw, pre_buffer=False, buffer_size=_BUFFER)
