"""Tables whose files break their promises: strings that are no UTF-8, names that repeat, counts that differ."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import Item, ShardError, open_source
from safevlm.data.arrow import columns_of, items_of
from safevlm.data.columns import Choice, identifier
from safevlm.data.image_root import ImageRoot
from safevlm.errors import DataError
from tests.data.builders import drain

IMAGES = pa.array([b"0", b"1", b"2", b"3"], pa.binary())
TEXTS = [b"zero", b"caf\xe9", None, b"three"]
KINDS = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
OFFSETS = pa.array(range(5), pa.int32())


def broken(kind: pa.DataType) -> pa.Array:
    """Strings of a type, one of which is no UTF-8."""
    return pa.array(TEXTS, KINDS[kind]).view(kind)


def dictionary(strings: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), strings, safe=False)


def turns(strings: pa.Array) -> pa.Array:
    who = pa.array(["human"] * 4)
    return pa.ListArray.from_arrays(OFFSETS, pa.StructArray.from_arrays([who, strings], ["from", "value"]))


SHAPES = {
    "plain": lambda strings: strings,
    "dictionary": dictionary,
    "list": lambda strings: pa.ListArray.from_arrays(OFFSETS, strings),
    "large list": lambda strings: pa.LargeListArray.from_arrays(OFFSETS.cast(pa.int64()), strings),
    "fixed list": lambda strings: pa.FixedSizeListArray.from_arrays(strings, 1),
    "list in a list": lambda s: pa.ListArray.from_arrays(OFFSETS, pa.ListArray.from_arrays(OFFSETS, s)),
    "list of a dictionary": lambda strings: pa.ListArray.from_arrays(OFFSETS, dictionary(strings)),
    "turns": turns,
    "turns of a dictionary": lambda strings: turns(dictionary(strings)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_byte_that_is_no_utf8_costs_no_row(kind: pa.DataType, shape: str, tmp_path: Path) -> None:
    table = pa.table({"image": IMAGES, "captions": SHAPES[shape](broken(kind)), "__key__": broken(kind)})
    columns = columns_of(table.schema, Choice(), "a")
    items = list(items_of([table], columns, ImageRoot(str(tmp_path)), "a", 0))
    assert [(item.id, item.data, item.text) for item in items] == [
        ("zero", b"0", "zero"),
        ("caf\\xe9", b"1", "caf\\xe9"),
        ("a:2", b"2", ""),
        ("three", b"3", "three"),
    ]


@pytest.mark.parametrize("shape", ["plain", "list", "turns", "large list"])
def test_also_in_a_file(shape: str, tmp_path: Path) -> None:
    table = pa.table({"image": IMAGES, "conversations": SHAPES[shape](broken(pa.string()))})
    pq.write_table(table, tmp_path / "a.parquet")
    items, error = drain(open_source(f"parquet:{tmp_path}/a.parquet"))
    assert (error, [item.text for item in items]) == ("", ["zero", "caf\\xe9", "", "three"])


@pytest.mark.parametrize("wrap", ["path", "list of paths", "struct", "list of structs"])
def test_a_file_whose_name_is_no_utf8_is_found(wrap: str, tmp_path: Path) -> None:
    (tmp_path / "zero").write_bytes(b"0")
    Path(str(tmp_path), b"caf\xe9".decode("utf-8", "surrogateescape")).write_bytes(b"1")
    column: Any = broken(pa.string())
    if "struct" in wrap:
        column = pa.StructArray.from_arrays(
            [pa.array([None, None, b"2", None], pa.binary()), column], ["bytes", "path"]
        )
    if "list" in wrap:
        column = pa.ListArray.from_arrays(OFFSETS, column)
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
    items, error = drain(open_source(f"parquet:{tmp_path}/a.parquet"))
    assert error == ""
    assert [item.data for item in items] == [b"0", b"1", b"2" if "struct" in wrap else None, None]
    assert "no such file" in items[3].error


def write(path: Path, names: list[str], columns: list[Any]) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], names=names), path)


@pytest.mark.parametrize("name", ["image", "text", "id", "status", "caption"])
def test_two_columns_of_one_name_cost_their_file(name: str, tmp_path: Path) -> None:
    names, columns = ["image", name, name], [[b"1"], ["x"], ["y"]]
    if name == "image":
        names, columns = names[1:], [[b"1"], [b"2"]]
    write(tmp_path / "a.parquet", names, columns)
    write(tmp_path / "z.parquet", ["image"], [[b"3"]])
    source = open_source(f"parquet:{tmp_path}")
    repeated, sound = source.shards()
    with pytest.raises(ShardError, match=rf"a.parquet: 2 columns are called {name}; rename"):
        list(source.read(repeated))
    assert [item.data for item in source.read(sound)] == [b"3"]


def test_names_that_repeat_where_nothing_is_read_are_no_matter(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["image", "n", "n", "Image"], [[b"1"], [1], [2], [3]])
    assert drain(open_source(f"parquet:{tmp_path}/a.parquet")) == ([Item("a.parquet:0", data=b"1")], "")
    write(tmp_path / "b.parquet", ["image", "text", "text", "caption"], [[b"1"], ["x"], ["y"], ["z"]])
    uri = f"parquet:{tmp_path}/b.parquet?text=caption"
    assert drain(open_source(uri)) == ([Item("b.parquet:0", data=b"1", text="z")], "")


def test_fields_that_repeat_within_a_column_are_refused_where_it_is_read(tmp_path: Path) -> None:
    twice = pa.StructArray.from_arrays([pa.array([b"1"]), pa.array([b"2"])], ["bytes", "bytes"])
    turn = pa.StructArray.from_arrays(
        [pa.array(["human"]), pa.array(["a"]), pa.array(["b"])], ["from", "value", "value"]
    )
    columns = {"image": twice, "conversations": pa.ListArray.from_arrays([0, 1], turn)}
    for name, column in columns.items():
        table = pa.table({"image": [b"1"]} | {name: column})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=f"column {name} has several fields with one name"):
            open_source(f"parquet:{tmp_path}/{name}.parquet").shards()
    unread = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    pq.write_table(pa.table({"image": [b"1"], "other": unread}), tmp_path / "c.parquet")
    assert [item.data for item in drain(open_source(f"parquet:{tmp_path}/c.parquet"))[0]] == [b"1"]


@pytest.mark.parametrize(
    ("value", "id"),
    [
        (1, "1"),
        (1.0, "1"),
        ("1", "1"),
        (b"1", "1"),
        (Decimal("1.00"), "1"),
        (-0.0, "0"),
        (2.0**53, str(2**53)),
        (Decimal("0.50"), "0.50"),
        (0.5, "0.5"),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("NaN"), None),
        (None, None),
        ("", None),
        (True, None),
    ],
)
def test_ids_as_numbers_and_as_text_are_one(value: Any, id: str | None) -> None:
    assert identifier(value) == id


def test_ids_of_a_column_of_floats(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["image", "image_id"], [[b"1", b"2", b"3"], [7.0, None, float("nan")]])
    items, _ = drain(open_source(f"parquet:{tmp_path}/a.parquet"))
    assert [item.id for item in items] == ["7", "a.parquet:1", "a.parquet:2"]


def drained(uri: str) -> tuple[list[Item], str]:
    """As `drain`; a source that is refused, too, is its error."""
    try:
        return drain(open_source(uri))
    except DataError as refused:
        return [], str(refused)


def test_rows_that_the_file_hides_are_told(tmp_path: Path) -> None:
    """Its footer says in the row group how many rows there are, and in the file; the reader believes the first."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"%d" % n for n in range(19)]}), path, compression="none")
    whole = path.read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    footer, told = whole[-8 - size : -8], 0
    for place in range(size):  # a varint in zigzag: 19 is 38; 0 and 5 are 0 and 10
        for count in (0, 10):
            if footer[place] == 38:
                changed = footer[:place] + bytes([count]) + footer[place + 1 :]
                path.write_bytes(whole[: -8 - size] + changed + whole[-8:])
                items, error = drained(f"parquet:{path}")
                assert error or len(items) == 19
                told += bool(error)
    assert told


def test_mutated_files_end_in_an_error_of_ours(tmp_path: Path) -> None:
    """Whatever the parser raises: bits of the footer and of the pages flipped, and the file cut."""
    table = pa.table(
        {"image": [b"x" * n for n in range(50)], "id": ["i"] * 50, "captions": [["a", "b"]] * 50}
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=20)
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 3, 10])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        _, error = drained(f"parquet:{path}")
        assert not error or "a.parquet" in error
