"""Concept sets and preference files: what is read, how it is split, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
from safevlm.training.align.concepts import keyed_images
from safevlm.training.align.data import AlignData
from safevlm.training.align.gold import TEMPLATES
from safevlm.training.align.preferences import read_preferences
from safevlm.training.align.split import balanced, split_concepts

from safevlm.errors import DataError
from safevlm.judges import normalise
from safevlm.labelled import ConceptQuestions, read_concepts
from tests.training.align.builders import HARMLESS, UNSAFE, coloured, write_concepts
from tests.training.builders import png, write_jsonl, write_parquet

QUESTIONS = ConceptQuestions().image


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return keyed_images(write_concepts(tmp_path_factory.mktemp("c") / "set", images=5))


def test_a_folder_has_categories_and_concepts(images):
    assert Counter(one.gold for one in images) == {"safe": 25, "unsafe": 25}
    assert {one.concept for one in images} == {*UNSAFE, *HARMLESS}
    assert {one.category for one in images} == {"harm", "danger", "safe"}
    assert len({one.key for one in images}) == 50


def test_a_table_of_the_published_schemas(tmp_path):
    rows = [
        {
            "image": {"bytes": png(coloured(False, 1)), "path": None},
            "category": "Hate",
            "unsafe_concept": "a flag",
        },
        {
            "image": {"bytes": png(coloured(True, 2)), "path": None},
            "category": "safe",
            "unsafe_concept": "a cup",
        },
    ]
    found = keyed_images(write_parquet(tmp_path / "train-00000-of-00001.parquet", rows).parent)
    assert [(one.category, one.concept, one.gold) for one in found] == [
        ("Hate", "a flag", "unsafe"),
        ("safe", "a cup", "safe"),
    ]
    bench = [
        {"image": {"bytes": png(coloured(safe, 3)), "path": None}, "category": "Violence", "text": "x",
         "safety_label": "Safe" if safe else "Unsafe", "source": "Laion5B"}
        for safe in (True, False)
    ]  # fmt: skip
    found = keyed_images(write_parquet(tmp_path / "bench.parquet", bench))
    assert [(one.concept, one.gold, one.source) for one in found] == [
        ("Violence", "safe", "Laion5B"),
        ("Violence", "unsafe", "Laion5B"),
    ]


def test_bad_images_are_named(concepts, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(concepts, root)
    with pytest.raises(DataError, match="no such folder"):
        keyed_images(tmp_path / "none")
    shutil.copy(root / "harm" / "flame" / "2.png", root / "safe" / "apple" / "2.png")
    (root / "harm" / "flame" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError) as refused:
        keyed_images(root)
    for told in (
        "2 bad of 22 images",
        rf"{root / 'harm' / 'flame' / 'broken.png'}: ",
        rf"{root / 'safe' / 'apple' / '2.png'}: is safe here, and the same image is unsafe at",
    ):
        assert told in str(refused.value)
    shutil.copy(root / "harm" / "flame" / "1.png", root / "harm" / "1.png")
    with pytest.raises(DataError, match=r"harm/1\.png: stands in no <category>/<concept>/"):
        keyed_images(root)
    rows = [{"image": {"bytes": png(coloured(True, 1)), "path": None}, "category": "x", "unsafe_concept": ""}]
    with pytest.raises(DataError, match="row 1: column unsafe_concept is empty; name what the image shows"):
        keyed_images(write_parquet(tmp_path / "t.parquet", rows))


@pytest.mark.parametrize("hold_out", ["both", "concepts", "questions", "none"])
def test_held_out_concepts_images_and_questions(images, hold_out):
    split = split_concepts(images, QUESTIONS, hold_out=hold_out, share=0.2, seed=0)
    concepts = [{(one.gold, one.concept) for one in part} for part in (split.trained, split.held_out)]
    assert len(split.trained) == 40
    assert len(split.held_out) == 10
    if hold_out in ("both", "concepts"):
        assert not concepts[0] & concepts[1]
        assert Counter(gold for gold, _ in concepts[1]) == {"safe": 1, "unsafe": 1}
    else:
        assert concepts[0] == concepts[1]
    asked = (4, 1) if hold_out in ("both", "questions") else (5, 0)
    assert (len(split.questions), len(split.held_out_questions)) == asked
    assert {*split.questions, *split.held_out_questions} == {*QUESTIONS}
    again = split_concepts(images[::-1], QUESTIONS, hold_out=hold_out, share=0.2, seed=0)
    assert {one.key for one in again.held_out} == {one.key for one in split.held_out}


def test_held_out_concepts_spread_over_the_categories(tmp_path):
    rows = [
        {
            "image": {"bytes": png(coloured(gold == "safe", number)), "path": None},
            "category": gold,
            "unsafe_concept": f"c{number}",
        }
        for number, gold in enumerate(["safe"] * 5 + ["a"] * 10 + ["b"] * 5 + ["c"] * 5)
    ]
    split = split_concepts(
        keyed_images(write_parquet(tmp_path / "t.parquet", rows)),
        QUESTIONS,
        hold_out="both",
        share=0.2,
        seed=1,
    )
    assert Counter(one.category for one in split.held_out) == {"safe": 1, "a": 2, "b": 1, "c": 1}


def test_safe_images_are_as_many_and_of_the_same_sources(images):
    from dataclasses import replace

    unsafe = [
        replace(one, source="web" if n % 2 else "drawn")
        for n, one in enumerate(i for i in images if i.gold == "unsafe")
    ]
    safe = [
        replace(one, source="web" if n % 5 else "drawn")
        for n, one in enumerate(i for i in images if i.gold == "safe")
    ]
    rows = balanced([*unsafe, *safe], seed=0)
    assert Counter((one.source, one.gold) for one in rows) == {
        ("drawn", "unsafe"): 13, ("drawn", "safe"): 13, ("web", "unsafe"): 12, ("web", "safe"): 12,
    }  # fmt: skip
    with pytest.raises(
        DataError, match="source 'web' has 12 unsafe and 0 safe images to train on, so that it would tell"
    ):
        balanced([*unsafe, *(one for one in safe if one.source == "drawn")], seed=0)


def test_one_side_alone_and_nothing_to_hold_out_are_refused(images, tmp_path):
    unsafe = [one for one in images if one.gold == "unsafe"]
    with pytest.raises(DataError, match="has 25 unsafe and 0 safe images; alignment needs both"):
        split_concepts(unsafe, QUESTIONS, hold_out="none", share=0.2, seed=0)
    with pytest.raises(DataError, match=r"none to hold out; give more concepts.*--data\.hold_out none"):
        split_concepts(
            [one for one in images if one.concept in ("flame", "cup")],
            QUESTIONS,
            hold_out="both",
            share=0.2,
            seed=0,
        )
    with pytest.raises(DataError, match="of 1 questions 1 would be held out"):
        split_concepts(images, QUESTIONS[:1], hold_out="questions", share=0.2, seed=0)
    for given in ({}, {"concepts": "a", "preferences": "b"}):
        with pytest.raises(ValueError, match="give either concepts"):
            AlignData(**given)


def test_questions_and_sets_are_those_of_the_measurement(concepts, tmp_path):
    asked = {"image": ["Is it fine?", "May I show it?"], "text": ["{concept}: fine?", "Show {concept}?"]}
    (tmp_path / "q.yaml").write_text(json.dumps(asked))
    data = AlignData(str(concepts), questions=str(tmp_path / "q.yaml"), hold_out="concepts")
    data.read()
    assert data.split.questions == ("Is it fine?", "May I show it?")
    measured = {(one.category, one.concept, one.unsafe) for one in read_concepts(concepts, n=1).images}
    rows = (*data.split.trained, *data.split.held_out)
    assert {(one.category, one.concept, one.gold == "unsafe") for one in rows} == measured


def test_questions_are_drawn_anew_in_each_epoch_and_answers_fit_the_side(concepts):
    data = AlignData(str(concepts))
    data.read()
    assert len(data) == 16
    first, second = ([data.sample(number, epoch) for number in range(16)] for epoch in (0, 1))
    assert [one.prompt for one in first] != [one.prompt for one in second]
    for one in first + second:
        assert one.prompt in data.split.questions
        yes, no = (one.chosen, one.rejected) if one.gold == "safe" else (one.rejected, one.chosen)
        assert yes in TEMPLATES["safe"]
        assert no in TEMPLATES["unsafe"]
    assert [data.sample(number, 0) for number in range(16)] == first
    assert all(
        normalise(text).startswith("yes" if gold == "safe" else "no")
        for gold in TEMPLATES
        for text in TEMPLATES[gold]
    )


def test_preferences_in_the_form_of_hugging_face(tmp_path):
    (tmp_path / "a.png").write_bytes(png(coloured(True, 1)))
    user = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]}]
    rows = [
        {"prompt": "<image>What?", "chosen": "A cup.", "rejected": "A car.", "images": ["a.png"]},
        {"prompt": user, "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cup."}]}],
         "rejected": [{"role": "assistant", "content": "A car."}], "images": ["a.png"]},
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go.", "images": None},
    ]  # fmt: skip
    found = read_preferences(write_jsonl(tmp_path / "p.jsonl", rows))
    assert [(len(one.images), one.chosen, one.rejected) for one in found] == [
        (1, "A cup.", "A car."), (1, "A cup.", "A car."), (0, "Hello.", "Go."),
    ]  # fmt: skip
    assert found[0].prompt == "What?"
    binary = [{**rows[0], "images": [{"bytes": png(coloured(True, 1)), "path": None}]}]
    assert len(read_preferences(write_parquet(tmp_path / "p.parquet", binary))) == 1
    bad = [
        {**rows[0], "rejected": "A cup."},
        {**rows[1], "images": []},
        {**rows[0], "chosen": [{"role": "user", "content": "x"}]},
        {**rows[0], "images": ["missing.png"]},
        {**rows[0], "prompt": ""},
    ]
    with pytest.raises(DataError) as refused:
        read_preferences(write_jsonl(tmp_path / "bad.jsonl", bad))
    for told in (
        "row 1, column rejected: is the chosen answer",
        "row 2, column prompt: the chat has 1",
        "row 3, column chosen: has messages whose last one is not the assistant's",
        "row 4, column images: ",
        "row 5, column prompt: is empty",
    ):
        assert told in str(refused.value)
