"""Rows name images in many ways: each is read, or an error; none is taken for text."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from safevlm.data import Item, open_source
from safevlm.data.row_images import (
    EMPTY_BESIDE,
    MEDIA_BESIDE,
    OTHER_BESIDE,
    SHOWN_IN_TEXT,
    UNNAMED,
    WEB_BESIDE,
)
from safevlm.data.source import TEXT_ONLY

BODY = base64.b64encode(b"inline").decode()
DATA = f"data:image/png;base64,{BODY}"
INLINE = [b"inline"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `1.jpg` and `2.jpg`, which hold their names."""
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(f"{number}.jpg".encode())
    return tmp_path


def read(folder: Path, row: Any, kind: str) -> tuple[list[Item], Counter[str]]:
    """The items of a row, and what was passed over; a sound row beside it makes the file one of images."""
    rows = [{"id": "row", **row}, {"id": "sound", "image": "1.jpg"}]
    path = folder / "rows.json"
    path.write_text(json.dumps(rows) if kind == "llava" else "\n".join(map(json.dumps, rows)))
    source, passed_over = open_source(f"{kind}:{path}"), Counter()
    items = [item for shard in source.shards() for item in source.read(shard, passed_over)]
    assert items.pop() == Item("sound", 0, b"1.jpg")
    assert [item.number for item in items] == list(range(len(items)))
    return items, passed_over


def ask(*parts: Any, key: str = "messages", **message: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "What is it?"}]
    return {
        key: [{"role": "user", "content": content, **message}, {"role": "assistant", "content": "A dog."}]
    }


ONE, TWO = [b"1.jpg"], [b"1.jpg", b"2.jpg"]
PARTS: dict[str, tuple[Any, list[bytes]]] = {
    "image": ({"type": "image", "image": "1.jpg"}, ONE),
    "image object": ({"type": "image", "image": {"path": "1.jpg", "bytes": None}}, ONE),
    "image and null text": ({"type": "image", "image": "1.jpg", "text": None}, ONE),
    "url": ({"type": "image", "url": "1.jpg"}, ONE),
    "path": ({"type": "image", "path": "1.jpg"}, ONE),
    "base64": ({"type": "image", "base64": BODY}, INLINE),
    "data": ({"type": "image", "data": BODY, "mimeType": "image/png"}, INLINE),
    "image_url": ({"type": "image_url", "image_url": {"url": DATA, "detail": "low"}}, INLINE),
    "image_url text": ({"type": "image_url", "image_url": "1.jpg"}, ONE),
    "input_image": ({"type": "input_image", "image_url": "1.jpg", "detail": "auto"}, ONE),
    "image_path": ({"type": "image_path", "image_path": "1.jpg"}, ONE),
    "no type": ({"image": "1.jpg"}, ONE),
    "text and image": ({"type": "text", "text": "x", "image": "1.jpg"}, ONE),
    "Anthropic": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BODY}},
        INLINE,
    ),
    "Anthropic url": ({"type": "image", "source": {"type": "url", "url": "1.jpg"}}, ONE),
    "within a tool's result": (
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "base64", "data": BODY}}]},
        INLINE,
    ),
    "Gemini": ({"inline_data": {"mime_type": "image/png", "data": BODY}}, INLINE),
    "Gemini camel": ({"inlineData": {"mimeType": "image/png", "data": BODY}}, INLINE),
    "local before web": ({"type": "image", "url": "https://x.org/1.jpg", "path": "1.jpg"}, ONE),
    "source is a name": ({"type": "image", "path": "1.jpg", "source": "coco"}, ONE),
    "list": ({"type": "image", "image": ["1.jpg", "2.jpg"]}, TWO),
}


@pytest.mark.parametrize("key", ["messages", "conversations", "prompt", "input", "dialogue"])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_messages_are_read_with_their_words(name: str, key: str, folder: Path) -> None:
    part, expected = PARTS[name]
    items, passed_over = read(folder, ask(part, key=key), "jsonl")
    assert [item.data for item in items] == expected
    assert not passed_over
    assert all("What is it?" in item.text for item in items)
    assert not any("A dog" in item.text or item.text_error for item in items)


ROWS: dict[str, tuple[dict[str, Any], list[bytes]]] = {
    "images": ({"images": ["1.jpg", "2.jpg"]}, TWO),
    "image_path": ({"image_path": "1.jpg"}, ONE),
    "image_paths": ({"image_paths": ["1.jpg", "2.jpg"]}, TWO),
    "imagePath": ({"imagePath": "1.jpg"}, ONE),
    "img": ({"img": "1.jpg"}, ONE),
    "image_file": ({"image_file": "1.jpg"}, ONE),
    "file_name": ({"file_name": "1.jpg"}, ONE),
    "filepath": ({"filepath": "1.jpg"}, ONE),
    "path": ({"path": "1.jpg"}, ONE),
    "jpg": ({"jpg": "1.jpg"}, ONE),
    "numbered": ({"image_1": "1.jpg", "image_2": "2.jpg"}, TWO),
    "sides": ({"left_image": "1.jpg", "right_image": "2.jpg"}, TWO),
    "inline object": ({"image": {"bytes": BODY, "path": "gone.jpg"}}, INLINE),
    "path object": ({"image": {"bytes": None, "path": "1.jpg"}}, ONE),
    "list of objects": ({"images": [{"path": "1.jpg"}, {"url": "2.jpg"}]}, TWO),
    "MongoDB": ({"image": {"$binary": {"base64": BODY, "subType": "00"}}}, INLINE),
    "MongoDB old": ({"image": {"$binary": BODY, "$type": "00"}}, INLINE),
    "image_base64": ({"image_base64": BODY}, INLINE),
    "data URL": ({"image": DATA}, INLINE),
    "image and images": ({"image": "1.jpg", "images": ["./1.jpg", "2.jpg"]}, TWO),
    "a list may repeat": ({"images": ["1.jpg", "1.jpg"]}, [b"1.jpg", b"1.jpg"]),
    "image and a part": ({"image": "1.jpg", **ask({"type": "image", "path": "2.jpg"})}, TWO),
    "image and its part": ({"image": "1.jpg", **ask({"type": "image", "path": "1.jpg"})}, ONE),
    "image and a part without a value": ({"image": "1.jpg", **ask({"type": "image"})}, ONE),
    "image and file_name": ({"file_name": "2.jpg", "image": "1.jpg"}, TWO),
    "image and its file_name": ({"file_name": "x/1.jpg", "image": "1.jpg"}, ONE),
    "image_id is no image": ({"image": "1.jpg", "image_id": 7, "image_size": [4, 4]}, ONE),
    "in a message": ({"conversations": [{"from": "human", "value": "<image>", "image": "1.jpg"}]}, ONE),
    "content is one part": (
        {"messages": [{"role": "user", "content": {"type": "image", "url": "1.jpg"}}]},
        ONE,
    ),
    "Gemini": ({"contents": [{"role": "user", "parts": [{"inline_data": {"data": BODY}}]}]}, INLINE),
    "Qwen-VL": ({"conversations": [{"from": "user", "value": "Picture 1: <img>1.jpg</img>\nHm?"}]}, ONE),
    "messages in a list": ({"turns": [[{"user": [{"type": "image", "image": "1.jpg"}]}]]}, ONE),
}


@pytest.mark.parametrize("kind", ["llava", "jsonl"])
@pytest.mark.parametrize("name", ROWS)
def test_fields_and_mixtures_are_read(name: str, kind: str, folder: Path) -> None:
    row, expected = ROWS[name]
    items, passed_over = read(folder, row, kind)
    assert [item.data for item in items] == expected
    assert not passed_over


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "video part": (ask({"type": "video", "video": "a.mp4"}), "part of type 'video'"),
    "audio part": (ask({"type": "input_audio", "input_audio": {"data": BODY}}), "'input_audio'"),
    "file part": (ask({"type": "file", "file": {"file_id": "x"}}), "part of type 'file'"),
    "Gemini video": (
        {"contents": [{"parts": [{"inline_data": {"mime_type": "video/mp4", "data": BODY}}]}]},
        "'video/mp4'",
    ),
    "file id": (ask({"type": "input_image", "file_id": "file-1"}), "'file_id'"),
    "Anthropic file": (ask({"type": "image", "source": {"type": "file", "file_id": "f"}}), "other keys"),
    "part without a value": (ask({"type": "image"}), "part of type 'image'"),
    "generated": (ask({"type": "image_generation_call", "result": BODY}), "'result'"),
    "unknown object": ({"image": {"blob": BODY}}, "'blob'"),
    "empty object": ({"image": {}}, "none"),
    "numbers": ({"image": [255, 216]}, "255"),
    "true": ({"image": True}, "True"),
    "video": ({"video": "a.mp4", "text": "x"}, "field 'video'"),
    "unknown field": ({"mask": "1.jpg"}, "'1.jpg'"),
    "within a text": ({"text": "data:image/png;base64," + BODY * 200}, "data:image/png"),
    "web": ({"image": "https://example.org/1.jpg"}, "download"),
    "web alone": ({"image_url": "https://example.org/1.jpg"}, "download"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_not_understood_is_an_error(name: str, folder: Path) -> None:
    row, told = ERRORS[name]
    items, _ = read(folder, row, "jsonl")
    assert all(item.data is None for item in items)
    assert told in items[0].error


def test_an_image_beside_what_is_not_understood_is_read(folder: Path) -> None:
    items, _ = read(folder, {"image": "1.jpg", **ask({"type": "video", "video": "a.mp4"})}, "jsonl")
    assert [item.data for item in items] == [b"1.jpg", None]
    assert "'video'" in items[1].error


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "words of a video, an image and https://example.org/1.jpg"}, TEXT_ONLY),
        ({"image": None, "images": [], "id": "1"}, TEXT_ONLY),
        (ask('Why does <img src="x.png"> fail?'), SHOWN_IN_TEXT),
        ({"text": "See ![a cat](a/cat.jpg)."}, SHOWN_IN_TEXT),
        ({"text": "if (!a[0](b) < c) { img.src = d }"}, TEXT_ONLY),
        ({"conversations": [{"from": "human", "value": "<image>\nWhat?"}]}, UNNAMED),
    ],
)
def test_rows_of_text_are_counted(row: dict[str, Any], reason: str, folder: Path) -> None:
    assert read(folder, row, "jsonl") == ([], {reason: 1})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image_path": "1.jpg", "image_url": "https://example.org/1.jpg"}, WEB_BESIDE),
        ({"image": "1.jpg", "url": "https://example.org/a.jpg"}, WEB_BESIDE),
        ({"image": "1.jpg", "video": "clip.mp4"}, MEDIA_BESIDE),
        ({"image": "1.jpg", "screenshot": "a/2.jpg"}, OTHER_BESIDE),
        ({"image": "1.jpg", "candidates": ["2.jpg", "1.jpg"]}, OTHER_BESIDE),
        ({"images": ["1.jpg", None]}, EMPTY_BESIDE),
    ],
)
def test_where_an_image_comes_from_is_counted(row: dict[str, Any], reason: str, folder: Path) -> None:
    items, passed_over = read(folder, row, "jsonl")
    assert [item.data for item in items] == ONE
    assert passed_over == {reason: 1}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": [{"role": "USER", "content": "a b"}, {"role": "Assistant", "content": "c"}]}, "a b"),
        ({"messages": [{"role": "user", "content": ["a b", {"type": "image"}]}]}, "a b"),
        ({"messages": [{"role": "user", "content": {"type": "text", "text": "a b"}}]}, "a b"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "content": "a b"}]}]}, "a b"),
        (
            {"contents": [{"role": "user", "parts": [{"text": "a b"}]}, {"role": "model", "parts": "c"}]},
            "a b",
        ),
        ({"conversations": [{"human": "a b", "gpt": "c"}]}, "a b"),
        ({"conversations": [{"from": "person_1", "value": "<image>\na b"}]}, "a b"),
        ({"question": "a b", "answer": "c"}, "a b"),
        ({"caption": "x", **ask({"type": "image", "image": "1.jpg"})}, "x\nWhat is it?"),
    ],
)
def test_words_are_kept_in_every_notation(row: dict[str, Any], text: str, folder: Path) -> None:
    items, _ = read(folder, {"image": "1.jpg", **row}, "jsonl")
    assert [(item.text, item.text_error) for item in items] == [(text, "")]


def test_words_that_are_not_found_make_the_text_unread(folder: Path) -> None:
    """Of images in messages; the assistant's words are no part of it."""
    unknown = [{"says": "two words", "shows": [{"type": "image", "image": "1.jpg"}]}]
    (item,), _ = read(folder, {"turns": unknown}, "jsonl")
    assert "'turns'" in item.text_error
    answer = [{"role": "assistant", "content": [{"type": "image", "url": "1.jpg"}, {"text": "two words"}]}]
    (item,), _ = read(folder, {"messages": answer}, "jsonl")
    assert (item.text, item.text_error) == ("", "")


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(60))
BARE = base64.encodebytes(PNG).decode()


@pytest.mark.parametrize("kind", ["llava", "jsonl"])
@pytest.mark.parametrize(
    "row",
    [
        {"image": BARE},
        {"img_data": BARE},
        {"left_image": BARE.replace("\n", "")},
        {"jpg": BARE},
        ask({"type": "image", "image": BARE}),
        ask({"type": "image_url", "image_url": {"url": BARE}}),
    ],
    ids=str,
)
def test_bare_base64_is_read(row: dict[str, Any], kind: str, folder: Path) -> None:
    items, _ = read(folder, row, kind)
    assert [item.data for item in items] == [PNG]


@pytest.mark.parametrize(
    "row",
    [{"thumbnail": BARE}, {"data": BARE}, ask({"type": "media", "mime_type": "image/png", "data": BARE})],
    ids=str,
)
def test_bare_base64_in_an_unknown_place_is_an_error(row: dict[str, Any], folder: Path) -> None:
    ((item,), _) = read(folder, row, "jsonl")
    assert "written-out image" in item.error


def test_messages_packed_into_a_text_are_read(folder: Path) -> None:
    row = ask({"type": "image", "image": "2.jpg"})
    ((item,), _) = read(folder, {"messages": json.dumps(row["messages"])}, "jsonl")
    assert (item.data, item.text) == (b"2.jpg", "What is it?")


def test_files_of_coco_that_follow_one_another_are_no_rows(folder: Path) -> None:
    coco = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    ((item,), _) = read(folder, coco, "jsonl")
    assert item.data is None
    assert "coco:" in item.error
