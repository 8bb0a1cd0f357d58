"""Rows -> Parquet part files, each one complete or absent."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safevlm.errors import DataError, MissingExtraError

logger = logging.getLogger(__name__)

PART_NAME = re.compile(r"part-\d{5,}\.parquet")
UNFINISHED_NAME = re.compile(r"\.part-\d{5,}\.parquet\.tmp")
_MARK = b"safevlm"
BATCH_ROWS = 1024
"""Rows that `iterate_parts` holds at a time."""


class Column(NamedTuple):
    """A column: `kind` is string, int32, float32, bool, or scores (map of string to float32)."""

    name: str
    kind: str
    nullable: bool = True


class PartWriter:
    """Collects rows and writes them as `part-00000.parquet`, `part-00001.parquet` ...

    A part is written under a hidden name, synced and renamed, so a reader never sees half of one.

    Args:
        folder: where the parts go; made if it is not there.
        columns: the schema; a row has a value for each.
        rows_per_part: rows in every part but the last.
        mark: what is being written, kept in each part's metadata (see `written_by`).

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(
        self, folder: Path, columns: Sequence[Column], *, rows_per_part: int = 4096, mark: str
    ) -> None:
        pyarrow = _pyarrow()
        kinds = {
            "string": pyarrow.string(),
            "int32": pyarrow.int32(),
            "float32": pyarrow.float32(),
            "bool": pyarrow.bool_(),
            "scores": pyarrow.map_(pyarrow.string(), pyarrow.float32()),
        }
        fields = [pyarrow.field(c.name, kinds[c.kind], nullable=c.nullable) for c in columns]
        self._schema = pyarrow.schema(fields, metadata={_MARK: mark.encode()})
        self._folder = folder
        self._rows_per_part = rows_per_part
        self._rows: list[Mapping[str, Any]] = []
        self._parts = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take rows; full parts are written. Raises DataError where the disk does not take them."""
        self._rows.extend(rows)
        while len(self._rows) >= self._rows_per_part:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        while self._rows:
            self._write()

    def _write(self) -> None:
        # Interrupted at any point, this writes the same rows under the same number the next time.
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._folder / f"part-{self._parts:05d}.parquet"
        unfinished = path.with_name(f".{path.name}.tmp")
        rows = self._rows[: self._rows_per_part]
        try:
            with unfinished.open("wb") as file:
                pq.write_table(pa.Table.from_pylist(rows, schema=self._schema), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error}); free space or choose another folder"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
        self._rows, self._parts = self._rows[len(rows) :], self._parts + 1
        logger.debug("wrote %d rows to %s", len(rows), path)


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


def iterate_parts(folder: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of every `part-*.parquet` in a folder, in the order of the parts' names.

    A batch of rows is held at a time, whatever the parts' size. A folder without parts, or one that
    is not there, has no rows.

    Args:
        folder: where the parts are.
        columns: which of their columns are read.

    Raises:
        DataError: a part is broken or lacks one of the columns.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("part-*.parquet"), key=lambda path: (len(path.name), path.name)):
        try:
            with pq.ParquetFile(path) as file:
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise DataError(
                        f"{path}: has no column {', '.join(missing)}; scan again with this version"
                    )
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: is not a whole Parquet file ({error}); scan its shard again") from error


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "scan") from error
    return pyarrow
