"""JSON files in every encoding and packing, and to their end: rows are read, or the file is refused with the reason."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from safevlm.data import Item, json_stream, open_source
from safevlm.data.ids import id_of
from safevlm.data.jsonl import JsonlSource
from safevlm.data.llava import LlavaSource
from safevlm.data.utf8 import as_utf8
from safevlm.errors import DataError
from tests.data.builders import drain

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-32": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
ROWS = [{"id": f"ä€𝄞{n}", "image": f"{n}.jpg", "text": "ü" * n + "\u2028 x"} for n in range(5)]


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    """`0.jpg` to `4.jpg`, which hold their names."""
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(f"{number}.jpg".encode())


def text_of(kind: str, rows: list[dict[str, Any]]) -> str:
    if kind == "coco":
        images = [{"id": row["id"], "file_name": row["image"]} for row in rows]
        captions = [{"image_id": row["id"], "caption": row["text"]} for row in rows]
        return json.dumps({"annotations": captions, "images": images}, ensure_ascii=False)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    return "\n".join(lines) if kind == "jsonl" else f"[{', '.join(lines)}]"


def is_whole(items: list[Item]) -> bool:
    found = [(item.id, item.data, item.text.strip()) for item in items]
    return found == [(row["id"], row["image"].encode(), row["text"].strip()) for row in ROWS]


@pytest.mark.parametrize("kind", ["llava", "coco", "jsonl"])
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_and_packing_is_read(encoding: str, packer: str, kind: str, tmp_path: Path) -> None:
    """With and without a byte order mark, recognised by the name."""
    for mark in {b"", ENCODINGS[encoding]}:
        path = tmp_path / f"a.{'jsonl' if kind == 'jsonl' else 'json'}{packer}"
        path.write_bytes(PACKERS[packer](mark + text_of(kind, ROWS).encode(encoding)))
        source = open_source(str(path))
        assert source.uri == f"{kind}:{path}"
        assert is_whole([item for shard in source.shards() for item in source.read(shard)])


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("source", [LlavaSource, JsonlSource])
def test_shards_begin_in_the_middle(source: type, encoding: str, packer: str, tmp_path: Path) -> None:
    kind = "jsonl" if source is JsonlSource else "llava"
    path = tmp_path / "a.bin"
    path.write_bytes(PACKERS[packer](text_of(kind, ROWS).encode(encoding)))
    made = source(str(path), rows_per_shard=2)
    shards = made.shards()
    assert [shard.images for shard in shards] == [2, 2, 1]
    parts = [list(made.read(shard)) for shard in reversed(shards)]
    assert is_whole([item for part in reversed(parts) for item in part])


def test_text_begins_anywhere() -> None:
    text = "".join(random.Random(0).choices("aä€𝄞\n", k=40_000))
    raw = text.encode()
    for data in (
        raw,
        codecs.BOM_UTF8 + raw,
        text.encode("utf-16"),
        gzip.compress(raw),
        gzip.compress(text.encode("utf-32")),
    ):
        for start in (0, 1, 70_000, len(raw) - 1, len(raw)):
            assert as_utf8(io.BytesIO(data), start).read() == raw[start:]


@pytest.mark.parametrize("kind", ["llava", "coco", "jsonl"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: gzip.compress(text)[:-12], "cut off"),
        (lambda text: gzip.compress(text) + text, "follow the compressed data"),
        (lambda text: bz2.compress(text)[:-12], "cut off"),
        (lambda text: text.decode().encode("utf-16")[:-1], "truncated"),
        (lambda text: b"\x28\xb5\x2f\xfd" + text, "zstd, which is not read; unpack it"),
        (lambda text: b"PK\x03\x04" + text, "zip"),
    ],
)
def test_damage_to_the_packing_is_told(damage: Any, told: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(damage(text_of(kind, ROWS).encode()))
    try:
        items, error = drain(open_source(f"{kind}:{path}"))
    except DataError as refusal:
        items, error = [], str(refusal)
    assert told in error
    assert "a.bin" in error
    assert all(item.data for item in items)


BEHIND = {
    "garbage": "x",
    "a comma": ",",
    "a bracket": "]",
    "a brace": "}",
    "a number": " 1",
    "a zero byte": "\0",
    "a mark": "\ufeff",
    "an object": '\n{"id": "z", "image": "0.jpg"}',
    "a list": '[{"id": "z", "image": "0.jpg"}]',
    "rows": ',\n{"id": "z", "image": "0.jpg"}',
}


@pytest.mark.parametrize("chunk", [1, 1 << 16])
@pytest.mark.parametrize("kind", ["llava", "coco"])
@pytest.mark.parametrize("behind", BEHIND)
def test_nothing_stands_behind_the_value(
    behind: str, kind: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text_of(kind, ROWS) + " \t\r\n" * 3)
    items, error = drain(open_source(f"{kind}:{path}"))
    assert is_whole(items)
    assert not error
    path.write_text(text_of(kind, ROWS) + " " + BEHIND[behind])
    try:
        _, error = drain(open_source(f"{kind}:{path}"))
    except DataError as refusal:
        error = str(refusal)
    assert "behind the end of its JSON" in error
    assert "jsonl:" in error


@pytest.mark.parametrize("text", ['[{"image": "0.jpg"},]', '[{"image": "0.jpg"}, ,{"image": "1.jpg"}]', '[{"image": "0.jpg"} {"image": "1.jpg"}]', '[{"image": "0.jpg"}}', '[{"image": "0.jpg"}'])  # fmt: skip
def test_commas_and_brackets_are_where_they_belong(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    items, error = drain(open_source(f"llava:{tmp_path}/a.json"))
    assert [item.data for item in items] == [b"0.jpg"]
    assert error


@pytest.mark.parametrize("text", ['{"images": [], }', "{1: []}", '{"images" []}', "{,}"])
def test_an_object_has_names_and_commas(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="byte|damaged"):
        open_source(f"coco:{tmp_path}/a.json").shards()


@pytest.mark.parametrize("between", ["\n", "\r\n", "\r", "", "\n\n", " "])
@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_objects_that_follow_one_another_are_read(
    name: str, indent: int | None, between: str, tmp_path: Path
) -> None:
    """JSON Lines under either name; indented records, records of one line, and lines that end in CR alone."""
    text = between.join(json.dumps(row, indent=indent, ensure_ascii=False) for row in ROWS)
    (tmp_path / name).write_bytes(text.encode())
    source = JsonlSource(open_source(f"{tmp_path}/{name}").uri.removeprefix("jsonl:"), rows_per_shard=2)
    items, error = drain(source)
    assert is_whole(items)
    assert not error


def test_a_damaged_record_of_several_lines_ends_the_file(tmp_path: Path) -> None:
    records = [json.dumps(row, indent=1) for row in ROWS]
    (tmp_path / "a.jsonl").write_text("\n".join([*records[:3], records[3][:-3], records[4]]))
    items, error = drain(JsonlSource(f"{tmp_path}/a.jsonl", rows_per_shard=2))
    assert [item.data for item in items] == [b"0.jpg", b"1.jpg", b"2.jpg"]
    assert "is damaged" in error


def test_a_list_under_jsonl_is_refused_with_the_hint(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS, indent=1))
    with pytest.raises(DataError, match=r"a\.jsonl: is a JSON list.*llava:"):
        open_source(f"{tmp_path}/a.jsonl").shards()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"image": "0.jpg", "image": "1.jpg"}', "key 'image' twice"),
        ('{"image": "0.jpg"} {"image": "1.jpg"}', "Extra data"),
        ('{"image": "0.jpg"},', "Extra data"),
        ('{"image": "0.jpg"', "no JSON"),
        ('{"image": "0.jpg\0"}', "no JSON"),
        ('{"image": NaN}', "nan"),
        ('{"image": "0.jpg", "n": ' + "1" * 5000 + "}", "no JSON"),
        ('[{"image": "0.jpg"}]', "a list"),
        ("null", "null"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_bad_line_is_one_error(line: str, told: str, last: bool, tmp_path: Path) -> None:
    good = ['\ufeff{"image": "0.jpg"}', "", "  ", '{"image": "1.jpg"}']
    (tmp_path / "a.jsonl").write_text("\r\n".join([*good, line] if last else [good[0], line, *good[1:]]))
    items, error = drain(open_source(f"{tmp_path}/a.jsonl"))
    assert not error
    assert sorted(item.data for item in items if item.data) == [b"0.jpg", b"1.jpg"]
    (bad,) = (item for item in items if not item.data)
    assert told in bad.error


def test_a_row_of_a_list_that_cannot_be_told_is_one_error(tmp_path: Path) -> None:
    bad = ['{"image": "0.jpg", "image": "1.jpg"}', '{"image": "0.jpg", "n": ' + "1" * 5000 + "}"]
    (tmp_path / "a.json").write_text(f'[{{"image": "1.jpg"}}, {", ".join(bad)}, {{"image": "2.jpg"}}]')
    items, error = drain(open_source(f"llava:{tmp_path}/a.json"))
    assert [item.data for item in items] == [b"1.jpg", None, None, b"2.jpg"]
    assert "twice" in items[1].error
    assert "too many digits" in items[2].error
    assert not error


@pytest.mark.parametrize(
    ("values", "id"),
    [
        ([1, "1", 1.0, 1e0], "1"),
        ([0, "0", -0.0], "0"),
        ([10**30, str(10**30)], str(10**30)),
        (["01"], "01"),
        (["1.0"], "1.0"),
        ([1.5, "1.5"], "1.5"),
        ([1e300], "1e+300"),  # a float of this size is no certain number
        ([True, False, None, "", [], {}, float("inf"), float("nan"), json.loads("1e400")], None),
    ],
)
def test_an_id_is_one_however_it_is_written(values: list[Any], id: str | None) -> None:
    assert {id_of(value) for value in values} == {id}


def test_coco_joins_ids_of_every_type_and_counts_what_has_no_image(tmp_path: Path) -> None:
    content = {
        "annotations": [
            *({"image_id": id, "caption": f"c{n}"} for n, id in enumerate([7, "7", 7.0, 8.5, "x"])),
            *({"image_id": id, "caption": "lost"} for id in (True, None, [7], float("inf"), {})),
            {"caption": "no id"},
            {"image_id": 9, "caption": "gone"},
            {"image_id": "07", "caption": "gone"},
            {"image_id": 7, "bbox": [0, 0, 1, 1]},
            {"image_id": 7, "caption": 12},
            "no object",
        ],
        "images": [
            *({"id": id, "file_name": f"{n}.jpg"} for n, id in enumerate([7.0, "8.5", "x"])),
            {"id": True, "file_name": "3.jpg"},
        ],
        "unlabelled": [{"file_name": "4.jpg"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    source, passed_over = open_source(f"coco:{tmp_path}/a.json"), Counter()
    items = [item for shard in source.shards() for item in source.read(shard, passed_over)]
    assert [(item.id, item.text) for item in items] == [
        ("7", "c0\nc1\nc2"),
        ("8.5", "c3"),
        ("x", "c4"),
        ("3.jpg", ""),
    ]
    assert passed_over == {
        "annotations without an image_id that is a number or text": 6,
        "captions that match no image": 2,
        "captions that are no text": 1,
        "annotations that are no object": 1,
        "rows with a file_name outside the list 'images'": 1,
    }


@pytest.mark.parametrize("kind", ["llava", "jsonl"])
def test_rows_have_ids_of_every_type(kind: str, tmp_path: Path) -> None:
    rows = [{"id": id, "image": "0.jpg"} for id in (1, "1", 1.0, True, float("inf"), None)]
    (tmp_path / "a.x").write_text(json.dumps(rows) if kind == "llava" else "\n".join(map(json.dumps, rows)))
    items, _ = drain(open_source(f"{kind}:{tmp_path}/a.x"))
    assert [item.id for item in items] == ["1", "1", "1", "a.x:3", "a.x:4", "a.x:5"]
