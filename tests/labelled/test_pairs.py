"""Tables of paired prompts: two forms, three kinds of file, and everything that makes no pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safevlm.errors import DataError
from safevlm.labelled import PromptPairs, read_pairs

HARMFUL, HARMLESS = (
    ("How to steal a car?", "How to forge, and pass, a note?"),
    ("How to wash a car?", "How to write a note?"),
)
PAIRS = PromptPairs(HARMFUL, HARMLESS)
IN_ONE_ROW = [{"harmful": a, "harmless": b} for a, b in zip(HARMFUL, HARMLESS, strict=True)]
IN_TWO = [
    {"text": text, "harmful": harmful, "pair_id": f"p{number}", "source": "s", "split": "train"}
    for harmful, texts in ((False, HARMLESS), (True, HARMFUL))
    for number, text in enumerate(texts)
]


def written(folder: Path, rows: list[dict[str, object]], suffix: str = ".jsonl") -> Path:
    path = folder / f"pairs{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_text("\n".join(",".join(f'"{value}"' for value in line) for line in lines))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("rows", [IN_ONE_ROW, IN_TWO])
def test_every_form_in_every_kind_of_file_gives_the_same_pairs(tmp_path, rows, suffix):
    found = read_pairs(written(tmp_path, rows, suffix))
    assert found == PAIRS
    assert found.sha256 == PAIRS.sha256


def test_the_hash_is_of_the_texts_and_of_which_is_harmful():
    assert PAIRS.sha256 != PromptPairs(HARMLESS, HARMFUL).sha256
    assert PAIRS.sha256 != PromptPairs(HARMFUL[::-1], HARMLESS[::-1]).sha256


def test_rows_without_a_pair_and_of_other_values_are_passed_over(tmp_path):
    others = [
        {"text": "Hello", "harmful": False, "pair_id": "", "source": "s", "split": "train"},
        {"text": "a", "harmful": True, "pair_id": "q", "source": "other", "split": "train"},
        {"text": "b", "harmful": False, "pair_id": "q", "source": "other", "split": "train"},
        {"text": "c", "harmful": True, "pair_id": "r", "source": "s", "split": "test"},
        {"text": "d", "harmful": False, "pair_id": "r", "source": "s", "split": "test"},
    ]
    path = written(tmp_path, [*others, *IN_TWO])
    assert read_pairs(path, source="s", split="train") == PAIRS
    assert len(read_pairs(path)) == 4


def test_parts_have_every_pair_once_and_depend_on_the_seed():
    pairs = PromptPairs(tuple(f"a{n}" for n in range(20)), tuple(f"b{n}" for n in range(20)))
    one, other = pairs.split(5, seed=0)
    assert (len(one), len(other)) == (15, 5)
    assert sorted(one.harmful + other.harmful) == sorted(pairs.harmful)
    for part in (one, other):
        assert [text[1:] for text in part.harmful] == [text[1:] for text in part.harmless]
    assert pairs.split(5, seed=0) == (one, other)
    assert pairs.split(5, seed=1) != (one, other)
    with pytest.raises(DataError, match="no pairs"):
        pairs.split(20, seed=0)


@pytest.mark.parametrize(
    ("harmful", "harmless", "told"),
    [
        ((), (), "there are no pairs"),
        (("a",), (), "1 harmful and 0 harmless"),
        (("a", " "), ("b", "c"), "empty prompt"),
        (("a", "a"), ("b", "c"), "1 prompts stand in several places.*keep one"),
        (("a", "b"), ("c", "a"), "such as a"),
    ],
)
def test_texts_that_are_no_pairs(harmful, harmless, told):
    with pytest.raises(DataError, match=told):
        PromptPairs(harmful, harmless)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "there are no pairs"),
        ([{"text": "a", "harmful": True, "pair_id": ""}], "there are no pairs"),
        ([{"prompt": "a"}], "row 1, column pair_id: is missing; a row has harmful, harmless, or text"),
        ([{"harmful": "a", "harmless": "b"}, {"harmful": "c"}], "row 2, column harmless: is missing"),
        ([{"harmful": "a", "harmless": None}], "row 1, column harmless: is no text"),
        ([{"harmful": "a", "harmless": 3}], "row 1, column harmless: is no text"),
        (IN_TWO[:3], "1 of 2 pairs have one prompt, such as p1, which has no harmful one"),
        (IN_TWO[2:], "2 of 2 pairs have one prompt, such as p0, which has no harmless one"),
        ([*IN_TWO, {**IN_TWO[0], "text": "x"}], "row 5, column pair_id: p0 has two harmless prompts"),
        ([{**IN_TWO[0], "harmful": "maybe"}], "column harmful: is neither true nor false"),
        ([{**IN_TWO[0], "pair_id": [1]}], "column pair_id: is a list"),
        (["a"], "row 1"),
    ],
)
def test_rows_that_make_no_pairs_are_named(tmp_path, rows, told):
    path = written(tmp_path, rows)
    with pytest.raises(DataError, match=told) as caught:
        read_pairs(path)
    assert str(caught.value).count(str(path)) == 1


def test_a_filter_needs_its_column(tmp_path):
    with pytest.raises(DataError, match="column split: is missing"):
        read_pairs(written(tmp_path, IN_ONE_ROW), split="train")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.jsonl", None, "no such file"),
        ("pairs.txt", b"a", "is no table of pairs"),
        ("pairs.jsonl", b'{"harmful": ', "row 1"),
        ("pairs.json", b"{}", "no list of rows"),
        ("pairs.csv", b"harmful,harmless\na,b,c\n", "row 1"),
        ("pairs.csv", b"harmful,harmless\na\n", "row 1"),
        ("pairs.csv", b'harmful,harmless\n"a,b\n', "is not CSV"),
        ("pairs.csv", b"harmful,harmless\n\xff\xfe,b\n", "is not CSV"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, told):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_pairs(path)
