"""Rows beyond the context are named before training, or dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image
from safevlm.training.datamodule import SafetyDataModule
from safevlm.training.lengths import check_lengths

from safevlm.backbone import FAMILIES, PromptLengths, encode, make_chat
from safevlm.errors import DataError
from safevlm.labelled.table import LabelledRow
from safevlm.types import IGNORED
from tests.families import family_backbone
from tests.tiny import picture, tiny_guard
from tests.training.builders import png

SIZES = [(16, 16), (40, 18), (20, 64), (300, 200)]
TEXTS = [("Hi", "Yes"), ("a </s> 你好 <image>", "two\nlines"), ("", "x")]


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_lengths_are_those_of_the_encoded_row(kind):
    backbone = family_backbone(kind)
    lengths = PromptLengths(backbone, safety_tokens=3)
    for size in SIZES:
        image = Image.new("RGB", size)
        for prompt, answer in TEXTS:
            chat = make_chat(prompt, 1)
            made = encode(backbone, [chat], [image], safety_tokens=3, answers=[answer])
            asked, answered = lengths(chat, [size], answer)
            assert asked + answered == int(made.tensors["attention_mask"].sum())
            assert answered == int((made.labels >= 0).sum())
            bound = lengths.at_most([prompt, answer], lengths.image_tokens(size))
            assert bound is None or bound >= asked + answered
    chat = make_chat("Hi", 0)
    assert lengths(chat, []) == (
        int(encode(backbone, [chat], [], safety_tokens=3).tensors["attention_mask"].sum()),
        0,
    )


def data_of(rows: list[LabelledRow], *, skip_bad: bool) -> SafetyDataModule:
    data = SafetyDataModule("table.json", skip_bad=skip_bad)
    data.train_rows, data.tune_rows, data.clean_rows = rows[:3], rows[3:4], rows[4:]
    return data


def row(number: int, prompt: str = "Hi", response: str = "Yes", image: bytes | None = None) -> LabelledRow:
    return LabelledRow(image, "k", prompt, response, 1, 1, "", f"table.json: row {number}")


def test_long_prompts_and_answers_are_named_and_dropped():
    guard = tiny_guard()
    image = png(picture())
    rows = [
        row(1),
        row(2, "a" * 600),
        row(3, image=image),
        row(4, response="a" * 480, image=image),
        row(5, "é" * 250),
    ]
    with pytest.raises(
        DataError, match=r"3 of 5 rows.*skip_bad(.|\n)*row 2: has 6\d\d tokens(.|\n)*row 5: .*takes 512"
    ) as error:
        check_lengths(data_of(rows, skip_bad=False), guard, hint=lambda _: "", only_answered=False)
    assert "row 4: has 521 tokens (prompt 22, image 18, response 481)" in str(error.value)
    data = data_of(rows, skip_bad=True)
    check_lengths(data, guard, hint=lambda _: "", only_answered=False)
    assert data.train_rows == [rows[0], rows[2]]
    assert not data.tune_rows
    assert not data.clean_rows


def test_hints_count_and_rows_without_an_answer_do_not():
    guard = tiny_guard()
    near = [row(1, "a" * 450), row(2, "a" * 600, response="")]
    check_lengths(data_of(near, skip_bad=False), guard, hint=lambda _: "", only_answered=True)
    with pytest.raises(DataError, match="1 of 2 rows"):
        check_lengths(data_of(near, skip_bad=False), guard, hint=lambda _: "b" * 50, only_answered=True)
    with pytest.raises(DataError, match="every training row"):
        check_lengths(data_of(near[:1], skip_bad=True), guard, hint=lambda _: "b" * 50, only_answered=True)


def test_what_is_left_can_be_trained_on():
    guard = tiny_guard()
    unlabelled = replace(row(1), level=IGNORED)
    data = data_of([unlabelled, row(2, "a" * 600)], skip_bad=True)
    with pytest.raises(DataError, match="no training row has a risk_level"):
        check_lengths(data, guard, hint=lambda _: "", only_answered=False)
    data = data_of([row(1), row(2), row(3), row(4), row(5, "a" * 600)], skip_bad=True)
    data.clean, data.clean_fraction = "clean.json", 0.3
    with pytest.raises(DataError, match=r"clean\.json: no row is left"):
        check_lengths(data, guard, hint=lambda _: "", only_answered=False)
