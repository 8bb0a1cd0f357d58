"""Parquet files: which column is what, every way that pictures are stored, and what is wrong with files."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import Item, ShardError, open_source
from safevlm.data.arrow import columns_of
from safevlm.data.columns import IN_MESSAGES, OTHER_COLUMNS, Choice, Columns
from safevlm.data.source import TEXT_ONLY
from safevlm.errors import DataError
from tests.data.builders import drain

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(uri: str | Path) -> list[Item]:
    source = open_source(str(uri))
    return [item for shard in source.shards() for item in source.read(shard)]


def refusal(uri: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        read(uri)
    return str(caught.value)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_raw_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "a.parquet", {"png": pa.array([b"1", b"2"], kind), "n": [1, 2]})
    assert read(path) == [Item("a.parquet:0", 0, b"1"), Item("a.parquet:1", 0, b"2")]


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    columns = {
        "url": ["https://example.org/1", "https://example.org/2"],
        "caption": ["one", "two"],
        "key": ["000000000", "000000001"],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "HTTP Error 404: Not Found"],
        "jpg": pa.array([b"1", None], pa.binary()),
    }
    good, failed = read(write(tmp_path / "00000.parquet", columns))
    assert good == Item("000000000", 0, b"1", text="one")
    assert (failed.id, failed.data, failed.text) == ("000000001", None, "two")
    assert "failed_to_download, HTTP Error 404" in failed.error


def test_paths_stay_inside_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(b"inside")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    names = [
        "sub/a.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "none.png",
        "",
        "a\0b",
        ".",
    ]
    names += ["https://example.org/x.png", "file:///etc/hostname", "sub"]
    items = read(write(folder / "a.parquet", {"image_path": names}))
    assert [item.data for item in items] == [b"inside"] + [None] * 10
    for item, told in zip(items[1:4], ["leaves the folder"] * 3, strict=True):
        assert told in item.error
    assert "no such file" in items[4].error
    assert all("is a URL" in item.error for item in items[8:10])
    assert "is a directory" in items[10].error


def test_the_struct_of_hugging_face(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"2")
    rows = [
        {"bytes": b"1", "path": "/elsewhere/a.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": "../c.png"},
        {"bytes": None, "path": None},
        None,
    ]
    items = read(write(tmp_path / "a.parquet", {"image": pa.array(rows, IMAGE), "text": list("abcde")}))
    assert [item.data for item in items] == [b"1", b"2", None, None, None]
    assert "leaves the folder" in items[2].error
    assert all("a.parquet:" in item.error and "is empty" in item.error for item in items[3:])
    assert [item.text for item in items] == list("abcde")


def test_lists_keep_every_image(tmp_path: Path) -> None:
    rows = [[{"bytes": b"1", "path": None}, {"bytes": b"2", "path": None}], [], [None], None]
    path = write(tmp_path / "a.parquet", {"images": pa.array(rows, pa.list_(IMAGE)), "id": [5, 6, 7, 8]})
    items = read(path)
    assert [(item.id, item.number, item.data) for item in items] == [
        ("5", 0, b"1"),
        ("5", 1, b"2"),
        ("7", 0, None),
        ("8", 0, None),
    ]
    assert [shard.images for shard in open_source(str(path)).shards()] == [None]


def test_conversations_and_lists_of_captions(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    for number, (name, value, text) in enumerate(
        [("conversations", turns, "What?"), ("messages", chat, "Why?"), ("captions", ["a", "b"], "a\nb")]
    ):
        path = write(tmp_path / f"{number}.parquet", {"image": [b"1"], name: [value]})
        assert read(path)[0].text == text


def test_two_columns_of_pictures_are_refused_with_the_choices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"before": [b"1"], "after": [b"2"], "note": ["x"], "key": ["k"]})
    assert "?image=before or ?image=after" in refusal(path)
    uri = f"parquet:{path}?image=after&text=note&id=note"
    assert read(uri) == [Item("x", 0, b"2", text="x")]
    assert open_source(uri).uri == uri


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?image=none", "no column 'none' for image; it has image (binary), n (int64), x (bool)"),
        ("?image=n", "column 'n' is int64"),
        ("?text=image", "column 'image' is binary"),
        ("?id=x", "column 'x' is bool"),
        ("?picture=image", "unknown option picture; it takes image, text, id"),
    ],
)
def test_a_missing_or_wrongly_typed_column(tmp_path: Path, query: str, told: str) -> None:
    path = write(tmp_path / "a.parquet", {"image": [b"1"], "n": [1], "x": [True]})
    found = refusal(f"parquet:{path}{query}")
    assert told in found
    assert "a.parquet" in found


def test_no_pictures_and_no_rows(tmp_path: Path) -> None:
    assert "no column holds images; it has n (int64)" in refusal(write(tmp_path / "a.parquet", {"n": [1]}))
    assert "has no rows" in refusal(write(tmp_path / "b.parquet", {"image": pa.array([], pa.binary())}))


def test_small_row_groups_share_a_shard_and_large_ones_do_not(tmp_path: Path) -> None:
    rows = [str(number).encode() for number in range(3000)]
    write(tmp_path / "small.parquet", {"image": rows}, row_group_size=500)
    write(tmp_path / "large.parquet", {"image": rows}, row_group_size=1500)
    source = open_source(f"parquet:{tmp_path}")
    shards = source.shards()
    assert [(shard.name, shard.images) for shard in shards] == [
        ("large.parquet:0", 1500),
        ("large.parquet:1", 1500),
        ("small.parquet:0-2", 1500),
        ("small.parquet:3-5", 1500),
    ]
    for shard in shards:
        items = list(source.read(shard))
        assert [item.data for item in items] == rows[-1500:] if shard.name[-1] in "15" else rows[:1500]
        assert [item.id.rpartition(":")[2].encode() for item in items] == [item.data for item in items]


def test_folders_and_globs(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-0.parquet", {"image": [b"1"]})
    write(tmp_path / "data" / "train-1.parquet", {"image": [b"2"]})
    write(tmp_path / "data" / "test-0.parquet", {"image": [b"3"]})
    (tmp_path / "data" / "_metadata.parquet").touch()
    assert [item.data for item in read(f"parquet:{tmp_path}")] == [b"3", b"1", b"2"]
    glob = f"{tmp_path}/data/train-*.parquet"
    assert [(item.id, item.data) for item in read(glob)] == [
        ("train-0.parquet:0", b"1"),
        ("train-1.parquet:0", b"2"),
    ]


def test_a_broken_file_is_a_shard_that_fails_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"1"]})
    (tmp_path / "b.parquet").write_bytes(b"PAR1 this is none PAR1")
    write(tmp_path / "c.parquet", {"other": [1]})
    source = open_source(f"parquet:{tmp_path}")
    whole, broken, other = source.shards()
    assert [item.data for item in source.read(whole)] == [b"1"]
    with pytest.raises(ShardError, match=r"b.parquet: cannot be read"):
        list(source.read(broken))
    with pytest.raises(ShardError, match=r"c.parquet: no column holds images"):
        list(source.read(other))
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "c.parquet").unlink()
    assert "b.parquet: cannot be read" in refusal(f"parquet:{tmp_path}")


def test_what_was_read_before_a_damaged_page_stands(tmp_path: Path) -> None:
    rows = [random.Random(number).randbytes(1000).hex().encode() for number in range(64)]
    path = write(
        tmp_path / "a.parquet",
        {"image": rows},
        compression="gzip",  # has checksums
        use_dictionary=False,
        data_page_size=2000 * 8,
        write_batch_size=8,
    )
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 12_000):
        data[place] ^= 0x5A
    path.write_bytes(data)
    items, error = drain(open_source(str(path)))
    assert "a.parquet: cannot be read" in error
    assert 0 < len(items) < 64
    assert [item.data for item in items] == rows[: len(items)]


def test_words_that_are_not_utf8_cost_nothing(tmp_path: Path) -> None:
    words = pa.array([b"caf\xe9", b"fine"]).view(pa.binary()).cast(pa.binary())
    broken = pa.StringArray.from_buffers(2, words.buffers()[1], words.buffers()[2])
    items = read(write(tmp_path / "a.parquet", {"image": [b"1", b"2"], "text": broken, "id": broken}))
    assert [(item.id, item.text, item.data) for item in items] == [
        ("caf\\xe9", "caf\\xe9", b"1"),
        ("fine", "fine", b"2"),
    ]


def test_words_in_many_lists_are_no_words(tmp_path: Path) -> None:
    for depth, told in ((2, "x"), (8, "x"), (9, ""), (20, ""), (40, "")):
        column = pa.array(["x"], pa.string())
        for _ in range(depth):
            column = pa.ListArray.from_arrays([0, 1], column)
        assert read(write(tmp_path / f"{depth}.parquet", {"image": [b"1"], "caption": column})) == [
            Item(f"{depth}.parquet:0", 0, b"1", text=told)
        ]


@pytest.mark.parametrize("wrap", [pa.list_, lambda t: pa.struct({"a": t}), lambda t: pa.map_(pa.string(), t)])
def test_a_deep_type_is_neither_words_nor_pictures(wrap: Any) -> None:
    kind = pa.string()
    for _ in range(2000):
        kind = wrap(kind)
    schema = pa.schema({"caption": pa.list_(kind), "image": pa.binary(), "other": pa.struct({"bytes": kind})})
    assert columns_of(schema, Choice(), "x") == Columns("image")


def test_a_file_that_was_mended_is_read_by_either_name(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    write(tmp_path / "a.parquet", {"image": [b"0"]})
    path.write_bytes(b"PAR1 this is none PAR1")
    broken = open_source(f"parquet:{tmp_path}").shards()[1]
    write(path, {"image": [b"1", b"2"]}, row_group_size=1)
    source = open_source(f"parquet:{tmp_path}")
    mended = source.shards()[1:]
    assert [shard.name for shard in mended] == ["b.parquet:0-1"]
    assert list(source.read(broken)) == list(source.read(mended[0]))


def message(**part: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", **part}, {"type": "text", "text": "What?"}]}]


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({"image": ["a.png"], "left_image": ["b.png"], "image2": ["c.png"]}, {OTHER_COLUMNS: 2}),
        ({"image": ["a.png"], "frames": [[[b"b"], [b"c"]]]}, {OTHER_COLUMNS: 1}),
        ({"image": ["a.png"], "messages": [message(image="b.png")]}, {IN_MESSAGES: 1}),
        ({"images": [["a.png"]], "messages": [message(index=0)]}, {}),
        ({"images": pa.array([[]], pa.list_(pa.string())), "messages": [message(path="b.png")]}, {IN_MESSAGES: 1, TEXT_ONLY: 1}),
        ({"image": [b"a"], "image_path": ["a.png"], "image_url": ["b"], "image_caption": ["c"]}, {}),
    ],
)  # fmt: skip
def test_what_may_be_images_beside_those_that_are_read_is_counted(
    columns: dict[str, Any], reasons: dict[str, int], tmp_path: Path
) -> None:
    source = open_source(str(write(tmp_path / "a.parquet", columns)))
    passed_over = Counter[str]()
    items = [item for shard in source.shards() for item in source.read(shard, passed_over)]
    assert len(items) == (TEXT_ONLY not in reasons)
    assert passed_over == reasons
    (name,) = {"image", "images"} & set(columns)
    chosen = open_source(f"parquet:{tmp_path / 'a.parquet'}?image={name}")
    assert chosen.shards()[0].images == source.shards()[0].images
