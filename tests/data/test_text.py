"""Words that are there and cannot be read leave a text error, never an image that seems to have no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safevlm.data import Item, open_source
from tests.data.builders import drain

UNREAD: dict[str, Any] = {
    "unknown keys": [{"speaker_": "user", "utterance": "how to do it"}],
    "a key per speaker": [{"Visitor": "how to do it", "Bot": "like this, then"}],
    "an object": {"en": "how to do it"},
    "too many lists": [[[[[[[[[["how to do it"]]]]]]]]]],
}
WITHOUT: dict[str, Any] = {
    "nothing": None,
    "no words": [],
    "answers alone": [{"from": "gpt", "value": "here you are"}],
    "a placeholder": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a cat there"}],
}


def only(uri: str) -> Item:
    (item,), error = drain(open_source(uri))
    assert not error
    assert item.data
    return item


def row_of(kind: str, field: str, value: Any, folder: Path) -> Item:
    png = next(folder.glob("*.png"))
    if kind == "parquet":
        pq.write_table(pa.table({"image": [png.read_bytes()], field: [value]}), folder / "a.parquet")
        return only(f"parquet:{folder}/a.parquet")
    row = {"image": png.name, field: value}
    (folder / "a.json").write_text(json.dumps(row if kind == "jsonl" else [row]))
    return only(f"{kind}:{folder}/a.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    return tmp_path


@pytest.mark.parametrize("field", ["conversations", "caption"])
@pytest.mark.parametrize("kind", ["jsonl", "llava"])
@pytest.mark.parametrize("case", UNREAD)
def test_words_that_are_not_understood_are_told(case: str, kind: str, field: str, folder: Path) -> None:
    item = row_of(kind, field, UNREAD[case], folder)
    assert item.text == ""
    assert item.text_error == f"the words in {field!r} are written in a way that is not known"


@pytest.mark.parametrize("case", ["unknown keys", "a key per speaker"])
def test_words_of_a_column_that_are_not_understood_are_told(case: str, folder: Path) -> None:
    item = row_of("parquet", "conversations", UNREAD[case], folder)
    assert "'conversations' are written in a way" in item.text_error


@pytest.mark.parametrize("kind", ["jsonl", "llava", "parquet"])
@pytest.mark.parametrize("case", WITHOUT)
def test_rows_without_words_have_none(case: str, kind: str, folder: Path) -> None:
    item = row_of(kind, "conversations", WITHOUT[case], folder)
    assert (item.text, item.text_error) == ("", "")
