"""LLaVA, COCO and jsonl files: names of pictures are hostile, files break off, and rows stream."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from safevlm.data import Item, ShardError, json_stream, open_source
from safevlm.data.coco import CocoSource
from safevlm.data.jsonl import JsonlSource
from safevlm.data.llava import LlavaSource
from safevlm.data.text import MAX_TEXT
from safevlm.errors import DataError
from tests.data.builders import drain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with pictures `0.jpg` to `4.jpg`, which hold their names, and a secret beside it."""
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    data = tmp_path / "data"
    data.mkdir()
    for number in range(5):
        (data / f"{number}.jpg").write_bytes(f"{number}.jpg".encode())
    (data / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return data


def write(path: Path, content: Any) -> Path:
    """A JSON file; of a jsonl file each row a line."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def read(uri: str | Path) -> list[Item]:
    source = open_source(str(uri))
    return [item for shard in source.shards() for item in source.read(shard)]


def named(kind: str, folder: Path, names: list[Any]) -> str:
    """A file of this kind with a row for each name."""
    if kind == "coco":
        images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
        return f"coco:{write(folder / 'a.json', {'images': images})}"
    suffix = "jsonl" if kind == "jsonl" else "json"
    return (
        f"{kind}:{write(folder / f'a.{suffix}', [{'id': n, 'image': name} for n, name in enumerate(names)])}"
    )


@pytest.mark.parametrize("kind", ["llava", "coco", "jsonl"])
def test_names_reach_nothing_outside_the_folder(kind: str, folder: Path) -> None:
    names = ["0.jpg", "../secret.jpg", str(folder.parent / "secret.jpg"), "link.jpg", "gone.jpg", "a\0b"]
    names += [
        "https://example.org/x.jpg",
        "file:///etc/hostname",
        "\ud800.jpg",
        "x" * 5000,
        str(folder / "1.jpg"),
    ]
    items = read(named(kind, folder, names))
    assert [item.id for item in items] == [str(number) for number in range(len(names))]
    assert [item.data for item in items] == [b"0.jpg", *[None] * 9, b"1.jpg"]
    assert all("leaves the folder" in item.error for item in items[1:4])
    assert "no such file" in items[4].error
    assert all("download" in item.error for item in items[6:8])
    for item in items:
        assert len(item.error) < 1000
        item.error.encode()


@pytest.mark.parametrize("kind", ["llava", "coco", "jsonl"])
def test_a_row_with_a_name_of_a_wrong_type_is_an_error(kind: str, folder: Path) -> None:
    items = read(named(kind, folder, ["0.jpg", 17, {"a": 1}, "1.jpg"]))
    assert [item.data for item in items] == [b"0.jpg", None, None, b"1.jpg"]
    assert all(item.error for item in items[1:3])


@pytest.mark.parametrize("kind", ["llava", "jsonl"])
def test_several_pictures_one_text_and_rows_without_a_picture(kind: str, folder: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\n<image>\nWhich?"},
        {"from": "gpt", "value": "The first."},
        {"from": "human", "value": "Why?"},
    ]
    rows = [
        {"id": "a", "image": ["0.jpg", "1.jpg"], "conversations": turns},
        {"id": "text only", "conversations": turns},
        {"image": "2.jpg"},
        "no object",
    ]
    path = write(folder / ("a.jsonl" if kind == "jsonl" else "a.json"), rows)
    items = read(path)
    assert items[:3] == [
        Item("a", 0, b"0.jpg", text="Which?\nWhy?"),
        Item("a", 1, b"1.jpg", text="Which?\nWhy?"),
        Item(f"{path.name}:2", 0, b"2.jpg"),
    ]
    assert "an object belongs" in items[3].error
    assert [shard.images for shard in open_source(str(path)).shards()] == [4]


def test_coco_joins_captions_and_passes_over_the_rest(folder: Path) -> None:
    content = {
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"image_id": 7, "caption": " one "},
            {"image_id": 9, "caption": "other"},
            {"image_id": 7, "caption": "two"},
            {"image_id": 7, "bbox": [0, 0, 1, 1], "segmentation": [[1, 2, 3, 4]]},
            {"image_id": [7], "caption": "wrong"},
        ],
        "images": [{"id": 9, "file_name": "1.jpg"}, {"id": 7, "file_name": "0.jpg"}, {"id": 3}, 5],
    }
    items = read(write(folder / "c.json", content))
    assert items[:2] == [Item("9", 0, b"1.jpg", text="other"), Item("7", 0, b"0.jpg", text="one\ntwo")]
    assert "has no 'file_name'" in items[2].error
    assert "is no object" in items[3].error


def test_the_folder_of_the_pictures_is_found_or_given(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sets" / "images").mkdir(parents=True)
    (tmp_path / "sets" / "images" / "0.jpg").write_bytes(b"in images")
    path = write(tmp_path / "sets" / "a.json", [{"image": "none.jpg"}, {"image": "0.jpg"}])
    assert [item.data for item in read(path)] == [None, b"in images"]
    assert [item.data for item in read(f"{path}?images={folder}")] == [None, b"0.jpg"]
    (tmp_path / "sets" / "0.jpg").write_bytes(b"beside")
    assert [item.data for item in read(path)] == [None, b"beside"]


def test_messages_and_pictures_written_out_in_a_line(folder: Path) -> None:
    body = base64.b64encode(b"inline").decode()
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{body}"}},
        {"type": "image", "image": "0.jpg"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,#"}},
        {"type": "image_url", "image_url": {"url": "data:text/plain,x"}},
    ]
    items = read(write(folder / "a.jsonl", [{"id": "a", "messages": [{"role": "user", "content": content}]}]))
    assert [item.data for item in items] == [b"inline", b"0.jpg", None, None]
    assert {item.text for item in items} == {"What is it?"}
    assert "damaged base64" in items[2].error
    assert "without base64" in items[3].error


def test_a_broken_line_is_one_item_and_costs_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safevlm.data.jsonl.MAX_ROW", 1000)
    lines = [
        *(b'{"image": "0.jpg"}', b'{"image": ', b"\xff\xfe", b"", b"[" * 900, b"[" + b"1," * 5000 + b"1]"),
        b'{"image": "1.jpg"}',
    ]
    (folder / "a.jsonl").write_bytes(b"\r\n".join(lines))
    items = read(folder / "a.jsonl")
    assert [item.data for item in items] == [b"0.jpg", None, None, None, None, b"1.jpg"]
    assert all("the line" in item.error for item in items[1:5])
    assert len({item.id for item in items}) == 6


@pytest.mark.parametrize("depth", [9, 600, 100_000])
@pytest.mark.parametrize("kind", ["llava", "coco", "jsonl"])
def test_a_row_that_is_nested_deeply_costs_no_other(kind: str, depth: int, folder: Path) -> None:
    words = "[" * depth + '"]{\\"["' + "]" * depth
    deep = f'{{"image": "1.jpg", "file_name": "1.jpg", "caption": {words}}}'
    rows = ['{"image": "0.jpg", "file_name": "0.jpg"}', deep, '{"image": "2.jpg", "file_name": "2.jpg"}']
    text = "\n".join(rows) if kind == "jsonl" else f"[{', '.join(rows)}]"
    path = folder / "a.txt"
    path.write_text(f'{{"x": {deep}, "images": {text}}}' if kind == "coco" else text)
    first, middle, last = read(f"{kind}:{path}")
    assert [first.data, last.data] == [b"0.jpg", b"2.jpg"]
    if depth < 100_000:
        assert middle.data == b"1.jpg"
        assert middle.text == ""
    else:
        assert middle.data is None
        assert "nested too deeply" in middle.error or "is no JSON" in middle.error


def test_a_deep_row_ends_where_json_ends_it_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is the next row, behind strings that look like brackets."""
    deep = "[" * 5000 + '"a]\\\\", "\\"]", {"]": "[" }' + "]" * 5000
    text = f'[{deep} , {{"a": "}}"}}, {deep}]'.encode()
    for chunk in (1, 7, 100, 1 << 16):
        monkeypatch.setattr(json_stream, "_CHUNK", chunk)
        found = list(json_stream.elements(io.BytesIO(text)))
        assert [bool(element.error) for element in found] == [True, False, True]
        assert found[1].value == {"a": "}"}
        rest = list(json_stream.elements(io.BytesIO(text), start=found[0].end))
        assert [element.end for element in rest] == [element.end for element in found[1:]]


def test_a_caption_that_cannot_be_told_is_not_left_out(folder: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    images = '[{"id": 1, "file_name": "0.jpg"}]'
    (folder / "c.json").write_text(f'{{"images": {images}, "annotations": [{deep}]}}')
    with pytest.raises(DataError, match="an annotation that at byte .* is nested too deeply"):
        read(f"coco:{folder}/c.json")


def test_coco_keeps_ids_and_words_as_they_are(folder: Path) -> None:
    """Captions may come first; 7 and "7" are one id; lone surrogates are written out."""
    content = {
        "annotations": [
            {"image_id": 7, "caption": "number"},
            {"image_id": "7", "caption": "text"},
            {"image_id": "0.jpg", "caption": "by its name"},
            {"image_id": "\ud800", "caption": "lone \udfff, pair \U0001d11e"},
            {"image_id": 7, "caption": "second"},
        ],
        "images": [
            {"id": "7", "file_name": "1.jpg"},
            {"id": 7, "file_name": "2.jpg"},
            {"file_name": "0.jpg"},
            {"id": "\ud800", "file_name": "\udcff.jpg"},
            {"id": 7, "file_name": "3.jpg"},
        ],
    }
    (folder / "\udcff.jpg").write_bytes(b"named by a byte")
    items = read(write(folder / "c.json", content))
    assert [(item.id, item.data, item.text) for item in items] == [
        ("7", b"1.jpg", "number\ntext\nsecond"),
        ("7", b"2.jpg", "number\ntext\nsecond"),
        ("0.jpg", b"0.jpg", "by its name"),
        ("\\ud800", b"named by a byte", "lone \\udfff, pair \U0001d11e"),
        ("7", b"3.jpg", "number\ntext\nsecond"),
    ]


def test_coco_holds_no_more_words_than_a_text_has(folder: Path) -> None:
    captions = [{"image_id": 1, "caption": f"{n:04d}" + "x" * 996} for n in range(1000)]
    write(folder / "c.json", {"images": [{"id": 1, "file_name": "0.jpg"}], "annotations": captions})
    (item,) = read(f"coco:{folder}/c.json")
    assert item.text == "\n".join(caption["caption"] for caption in captions)[:MAX_TEXT]


def test_coco_begins_in_the_middle_and_in_another_process(folder: Path) -> None:
    content = {"images": [{"file_name": f"{n % 5}.jpg", "id": n} for n in range(20)]}
    source = CocoSource(str(write(folder / "c.json", content)), rows_per_shard=7)
    shards = source.shards()
    for number in (2, 0, 1):
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301
        ids = [item.id for item in copy.read(shards[number])]
        assert ids == [str(n) for n in range(number * 7, min(number * 7 + 7, 20))]
        assert ids == [item.id for item in source.read(shards[number])]


def test_a_temporary_file_that_cannot_grow_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, *values: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("safevlm.data.coco._Catalogue.add_image", full)
    write(folder / "c.json", {"images": [{"id": 1, "file_name": "0.jpg"}]})
    with pytest.raises(DataError, match=r"c.json.*disk is full.*free space"):
        read(f"coco:{folder}/c.json")


@pytest.mark.parametrize("source", [LlavaSource, JsonlSource])
def test_shards_begin_in_the_middle_of_the_file(source: type, folder: Path) -> None:
    rows = [{"id": f"ä{n}", "image": f"{n % 5}.jpg", "text": "é" * n} for n in range(100)]
    path = write(folder / ("a.jsonl" if source is JsonlSource else "a.json"), rows)
    made = source(str(path), rows_per_shard=7)
    shards = made.shards()
    assert [shard.images for shard in shards] == [7] * 14 + [2]
    for number in (14, 3, 0):
        ids = [item.id for item in made.read(shards[number])]
        assert ids == [row["id"] for row in rows[number * 7 : number * 7 + 7]]


def test_a_list_that_is_cut_off_keeps_what_came_before(folder: Path) -> None:
    text = json.dumps([{"id": n, "image": f"{n % 5}.jpg"} for n in range(20)])
    for cut in (len(text) // 2, len(text) - 1, text.index('{"id": 8')):
        (folder / "a.json").write_text(text[:cut])
        items, error = drain(LlavaSource(str(folder / "a.json"), rows_per_shard=4))
        assert "a.json: " in error
        assert "ends at byte" in error or "is damaged" in error
        assert [item.id for item in items] == [str(n) for n in range(text[:cut].count("}"))]


@pytest.mark.parametrize("source", [LlavaSource, JsonlSource])
def test_words_that_are_not_utf8_cost_nothing(source: type, folder: Path) -> None:
    rows = [b'{"image": "%d.jpg", "text": "caf\xe9 \xc3\xa9"}' % number for number in range(5)]
    data = b"\n".join(rows) if source is JsonlSource else b"[" + b",".join(rows) + b"]"
    (folder / "a.json").write_bytes(data)
    items, error = drain(source(str(folder / "a.json"), rows_per_shard=2))
    assert not error
    assert [item.data for item in items] == [f"{number}.jpg".encode() for number in range(5)]
    assert {item.text for item in items} == {"caf\\udce9 é"}


def test_a_file_that_changes_after_planning_is_refused(folder: Path) -> None:
    source = open_source(named("llava", folder, ["0.jpg"]))
    (shard,) = source.shards()
    named("llava", folder, ["1.jpg", "2.jpg"])
    with pytest.raises(ShardError, match="has changed"):
        list(source.read(shard))


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("llava", "", "ends at byte 0"),
        ("llava", "[" * 200_000, "is damaged"),
        ("llava", '[{"image": "0.jpg"} {', r"has '{' at byte 20"),
        ("llava", '{"images": [{"file_name": "0.jpg"}]}', "is it COCO"),
        ("llava", '[{"id": 1, "conversations": []}]', "names no images"),
        ("coco", '[{"image": "0.jpg"}]', "no images in a list 'images'"),
        ("coco", '{"annotations": [], "info": {}}', "lists with rows: none"),
        ("coco", '{"images": [], "annotations": [], "licenses": [1]}', "lists with rows: licenses"),
        ("jsonl", "\n\n", "names no images"),
        ("llava", b"[\xff\xfe]".decode("latin-1"), "is damaged"),
    ],
)
def test_what_is_not_such_a_file(kind: str, content: str, told: str, folder: Path) -> None:
    path = folder / f"a.{'jsonl' if kind == 'jsonl' else 'json'}"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=told) as caught:
        read(f"{kind}:{path}")
    assert path.name in str(caught.value)


def test_streaming_gives_what_json_gives_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is json.loads, on random values cut into random pieces."""
    dice = random.Random(0)

    def value(depth: int) -> Any:
        kind = dice.randrange(8 if depth else 6)
        if kind == 6:
            return [value(depth - 1) for _ in range(dice.randrange(4))]
        if kind == 7:
            return {str(n): value(depth - 1) for n in range(dice.randrange(4))}
        return [dice.randrange(10**9), -1.5e-7, 'ä"\\\n€𝄞]},[', None, True, ""][kind]

    for _ in range(150):
        monkeypatch.setattr(json_stream, "_CHUNK", dice.randrange(1, 20))
        rows = [value(3) for _ in range(dice.randrange(6))]
        shape = {"indent": dice.choice([None, 1]), "ensure_ascii": dice.random() < 0.5}
        listed = json.dumps(rows, **shape).encode(dice.choice(["utf-8", "utf-8-sig"]))
        found = list(json_stream.elements(io.BytesIO(listed)))
        assert [element.value for element in found] == rows
        if found:
            place = dice.randrange(len(found))
            rest = json_stream.elements(io.BytesIO(listed), start=found[place].end)
            assert [element.value for element in rest] == rows[place + 1 :]
        keyed = {"a": rows, "b": value(2), "c": 12, "d": [], "e": rows}
        keyed["b"] = None if isinstance(keyed["b"], list) else keyed["b"]
        told = list(json_stream.elements(io.BytesIO(json.dumps(keyed, **shape).encode())))
        assert [(element.key, element.value) for element in told] == [
            (key, row) for key in "ae" for row in rows
        ]
