"""Rows of part files, as they are read again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.errors import DataError
from safevlm.results.parts import BATCH_ROWS, iterate_parts


def write(folder: Path, count: int, rows_per_part: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{"id": str(number), "score": number / 4} for number in range(count)]
    for part, start in enumerate(range(0, count, rows_per_part)):
        table = pa.Table.from_pylist(rows[start : start + rows_per_part])
        pq.write_table(table, folder / f"part-{part:05d}.parquet")
    return rows


def test_every_row_comes_back_in_order(tmp_path: Path) -> None:
    rows = write(tmp_path, 3 * BATCH_ROWS + 5, BATCH_ROWS + 700)
    (tmp_path / ".part-00009.parquet.tmp").write_bytes(b"half")
    assert list(iterate_parts(tmp_path, ("id", "score"))) == rows
    assert [row["id"] for row in iterate_parts(tmp_path, ("id",))] == [row["id"] for row in rows]


def test_parts_are_read_by_number_beyond_five_digits(tmp_path: Path) -> None:
    write(tmp_path, 2, 1)
    (tmp_path / "part-00001.parquet").rename(tmp_path / "part-99999.parquet")
    (tmp_path / "part-00000.parquet").rename(tmp_path / "part-100000.parquet")
    assert [row["id"] for row in iterate_parts(tmp_path, ("id",))] == ["1", "0"]


def test_no_parts_are_no_rows(tmp_path: Path) -> None:
    assert list(iterate_parts(tmp_path / "none", ("id",))) == []


def test_an_optional_column_is_null_where_a_part_lacks_it(tmp_path: Path) -> None:
    rows = write(tmp_path, 2, 2)
    later = [row | {"read_text": "Fresh bread"} for row in rows]
    pq.write_table(pa.Table.from_pylist(later), tmp_path / "part-00001.parquet")
    found = list(iterate_parts(tmp_path, ("id", "score"), optional=("read_text",)))
    assert found == [row | {"read_text": None} for row in rows] + later


def test_a_missing_column_and_a_broken_part_are_named(tmp_path: Path) -> None:
    write(tmp_path, 3, 10)
    with pytest.raises(DataError, match=r"part-00000\.parquet: has no column level, phash"):
        list(iterate_parts(tmp_path, ("id", "level", "phash")))
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"part-00000\.parquet: is not a whole Parquet file"):
        list(iterate_parts(tmp_path, ("id",)))
