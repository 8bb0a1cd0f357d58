"""Parquet files with pictures: bytes, paths, or the Hugging Face Image layout."""

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
        self.uri = storage.uri("parquet", self.url, image=image, text=text, id=id)

    def shards(self) -> list[Shard]:
        """`a.parquet:3` is its row group 3, `a.parquet:3-5` three of them; the name alone, a file that is broken.

        A broken file has one shard, which fails. Once it is mended, the shards of its row groups take
        the place of that one; reading it by the name alone gives all of the file then.

        Raises:
            DataError: no files, none with rows, none that can be read (the first one's reason), or
                storage that fails for now.
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
        """The rows' pictures. Raises ShardError where the file cannot be read, or not further."""
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
    """Runs of row groups, each with `ROWS_PER_SHARD` rows or more, but for the last."""
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
    """Rows of each row group. Raises ShardError where the file contradicts itself: rows would be missing."""
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    counts = [int(group.num_rows) for group in groups]
    empty = (group for group in groups if not group.num_rows)
    if (
        min(counts, default=0) < 0
        or sum(counts) != file.metadata.num_rows
        or any(group.column(place).num_values for group in empty for place in range(group.num_columns))
    ):
        raise ShardError(f"{name}: says in two places how many rows it has, and differs; write it again")
    return counts


def _complete(batches: Iterator[Any], rows: int, name: str) -> Iterator[Any]:
    """The batches; raises ShardError where they end before as many rows as the file says it has."""
    left = rows
    for batch in batches:
        left -= batch.num_rows
        yield batch
    if left:
        raise ShardError(f"{name}: has {rows - left:,} of the {rows:,} rows that it says; write it again")


@contextmanager
def _opened(url: str, name: str) -> Iterator[Any]:
    """A ParquetFile that reads page by page; what is wrong with it, now or later, is a ShardError."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error

    def broken(error: Exception) -> ShardError:
        return ShardError(f"{name}: cannot be read ({storage.reason(error)}); download or write it again")

    with parser_errors(broken), storage.open_binary(url) as raw:
        yield pq.ParquetFile(raw, pre_buffer=False, buffer_size=_BUFFER)
