"""Rows -> Parquet part files, each one complete or absent."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from safevlm.errors import DataError, MissingExtraError
from safevlm.files import UNFINISHED, Replacement

logger = logging.getLogger(__name__)

PART_NAME = re.compile(r"part-\d{5,}\.parquet")
UNFINISHED_NAME = re.compile(r"\.part-\d{5,}\.parquet" + UNFINISHED)
_MARK = b"safevlm"
GROUP_ROWS = 4096
"""Rows that a part file collects before it writes them."""

BATCH_ROWS = 1024
"""Rows that `iterate_parts` holds at a time."""


class Column(NamedTuple):
    """A column: `kind` is string, int32, float32, bool, binary, or scores (map of string to float32)."""

    name: str
    kind: str
    nullable: bool = True


class PartFile:
    """One part file in the making: written under a hidden name, synced and renamed when it is complete.

    Memory is bounded: rows go to the disk in groups.

    Args:
        path: what it will be called, `part-00000.parquet` for example; its folder is there.
        columns: the schema; a row has a value for each.
        mark: what is being written, kept in the file's metadata (see `written_by`).

    Raises:
        DataError: the disk does not take it.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Sequence[Column], *, mark: str) -> None:
        pyarrow = _pyarrow()
        import pyarrow.parquet as pq

        kinds = {
            "string": pyarrow.string(),
            "int32": pyarrow.int32(),
            "float32": pyarrow.float32(),
            "bool": pyarrow.bool_(),
            "binary": pyarrow.binary(),
            "scores": pyarrow.map_(pyarrow.string(), pyarrow.float32()),
        }
        fields = [pyarrow.field(c.name, kinds[c.kind], nullable=c.nullable) for c in columns]
        self._schema = pyarrow.schema(fields, metadata={_MARK: mark.encode()})
        self._path = path
        self._rows: list[Mapping[str, Any]] = []
        with self._explained():
            self._unfinished = Replacement(path)
            self._writer = pq.ParquetWriter(self._unfinished.file, self._schema, compression="zstd")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be written ({error}); free space or choose another folder, and run "
                "the same command again"
            ) from error

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take rows."""
        self._rows.extend(rows)
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        with self._explained():
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def commit(self) -> None:
        """Put the file in its place, whole; it replaces one that is there."""
        if self._rows:
            self._flush()
        with self._explained():
            self._writer.close()
            self._unfinished.commit()
        logger.debug("wrote %s", self._path)

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        with suppress(OSError):  # its footer, which a full disk does not take
            self._writer.close()
        self._unfinished.discard()


def written_by(path: Path) -> str | None:
    """The mark in a part's metadata; None where the file is no Parquet file or carries none."""
    _pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    mark: bytes | None = metadata.get(_MARK)
    return None if mark is None else mark.decode()


def iterate_parts(
    folder: Path,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    only: Container[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of every `part-*.parquet` in a folder, in the order of the parts' names.

    A batch of rows is held at a time, whatever the parts' size. A folder without parts, or one that
    is not there, has no rows.

    Args:
        folder: where the parts are.
        columns: which of their columns are read.
        optional: columns that are read as well, and are null where a part lacks them.
        only: names of the parts that are read; None: all.

    Raises:
        DataError: a part is broken or lacks one of the columns.
        MissingExtraError: pyarrow is not installed.
    """
    for path in sorted(folder.glob("part-*.parquet"), key=lambda path: (len(path.name), path.name)):
        if only is None or path.name in only:
            yield from iterate_part(path, columns, optional=optional)


def iterate_part(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """The rows of one part; see `iterate_parts`."""
    pyarrow = _pyarrow()
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path}: has no column {', '.join(missing)}; scan again with this version")
            present = [*columns, *(name for name in optional if name in file.schema_arrow.names)]
            absent = dict.fromkeys(set(optional) - set(present))
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present):
                yield from (row | absent for row in batch.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a whole Parquet file ({error}); scan its shard again") from error


def read_column(path: Path, column: str, *, where: tuple[str, str] | None = None) -> list[Any]:
    """One column of a Parquet file, of all rows or of those where another column has a value.

    Raises:
        DataError: no such file, no Parquet file, or no such column.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    import pyarrow.parquet as pq

    filters = None if where is None else [(where[0], "=", where[1])]
    try:
        values: list[Any] = pq.read_table(path, columns=[column], filters=filters)[column].to_pylist()
    except (pyarrow.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}); export it again") from error
    return values


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "scan") from error
    return pyarrow
