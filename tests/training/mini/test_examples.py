"""The rows that train the guard: what they hold, and what is answered at each level."""

from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest
from safevlm.training.mini import dialogues as d
from safevlm.training.mini.examples import CATEGORIES, LEVELS, safety_rows
from safevlm.training.mini.phrases import notices, phrases
from safevlm.training.mini.safety_table import write_safety_table
from safevlm.training.mini.scenes import render

from safevlm import Taxonomy
from safevlm.judges import Judgement, judge
from safevlm.labelled import Needs, read_table

COLUMNS = {"image", "prompt", "response", "read_text", "risk_level", "risk_category", "labels_of", "split"}


@pytest.fixture(scope="module", params=["head", "joint"])
def rows(request):
    return request.param, list(safety_rows("train", 240, 0, stage=request.param))


def test_rows_are_labelled_and_of_one_size(rows):
    _, made = rows
    for row in made:
        assert set(row) == COLUMNS
        assert row["risk_level"] in LEVELS
        assert row["risk_category"] in CATEGORIES
        assert (row["risk_level"] == "safe") == (row["risk_category"] == "clean")
        assert row["image"] is None or (row["image"].size, row["image"].mode) == ((224, 224), "RGB")


def test_only_the_head_stage_has_mostly_risky_images_and_only_the_joint_one_text_alone(rows):
    stage, made = rows
    images = [row for row in made if row["image"] is not None and row["labels_of"] == "image"]
    risky = sum(row["risk_level"] != "safe" for row in images) / len(images)
    assert (risky > 0.25) == (stage == "head")
    assert any(row["image"] is None for row in made) == (stage == "joint")


def test_a_risky_pair_is_refused_and_a_row_of_text_is_no_pair(rows):
    _, made = rows
    pairs = [row for row in made if row["labels_of"] == "pair" and row["risk_level"] != "safe"]
    assert pairs
    assert all(judge(row["response"]) is Judgement.REFUSED for row in pairs)
    assert all(row["labels_of"] == "image" for row in made if row["image"] is None)


def test_what_is_read_has_the_label_of_the_words_and_is_no_prompt(rows):
    _, made = rows
    read = [row for row in made if row["read_text"]]
    assert {row["labels_of"] for row in read} == {"image", "pair"}
    known = {
        label: {"".join(p.split()).lower() for p in words}
        for label, words in (
            ("refuse", phrases("train", risky=True)),
            ("safe", (*phrases("train", risky=False), *notices("train"))),
        )
    }
    for row in read:
        assert "".join(row["read_text"].split()).lower() in known[row["risk_level"]]
        assert (judge(row["response"]) is Judgement.REFUSED) == (row["risk_level"] == "refuse")
        assert row["read_text"].lower() not in row["prompt"].lower()


def test_a_kind_of_row_can_be_left_out():
    made = list(safety_rows("train", 60, 0, stage="joint", without=("harmful request", "harmful text")))
    refused = [row for row in made if row["risk_category"] == "jailbreak"]
    assert all(
        (row["image"] is not None and row["labels_of"] == "image") or row["read_text"] for row in refused
    )
    with pytest.raises(ValueError, match="no such kind of row: captions; there are risky photograph"):
        next(safety_rows("train", 1, 0, stage="joint", without=("captions",)))


def test_risky_words_that_nobody_read_are_in_the_joint_tune_rows_alone():
    for split, seen in (("train", False), ("tune", True)):
        rows = safety_rows(split, 200, 0, stage="joint")
        unread = [
            row for row in rows if row["image"] and not row["read_text"] and row["labels_of"] == "image"
        ]
        assert any(row["risk_category"] == "jailbreak" for row in unread) is seen


def test_the_same_seed_gives_the_same_rows(rows):
    stage, made = rows
    again = safety_rows("train", 240, 0, stage=stage)
    for mine, other in zip(made, again, strict=True):
        assert {**mine, "image": None} == {**other, "image": None}
        assert mine["image"] is other["image"] is None or mine["image"].tobytes() == other["image"].tobytes()


@pytest.mark.parametrize("level", LEVELS)
def test_requests_are_refused_above_safe_and_questions_answered_below_the_highest(level):
    rng = random.Random(0)
    shown = d.shown_scene(render(1, "train", "risky", 16))
    category = "clean" if level == "safe" else "weapons"
    for _ in range(30):
        howto, caption = d.howto_turn(rng, "train", shown), d.caption_turn(rng, "train", shown)
        asked = judge(d.guarded_answer(rng, howto, level, category))
        assert (asked is Judgement.REFUSED) == (level != "safe")
        said = d.guarded_answer(rng, caption, level, category)
        assert (said == caption.answer) == (level != "refuse")


def test_the_table_is_what_training_reads(tmp_path):
    path = tmp_path / "joint.parquet"
    write_safety_table(path, stage="joint", train=30, tune=10)
    found = read_table(path, Taxonomy.preset("safevlm-mini"), needs=Needs(image=False, text=True))
    written = pq.read_table(path).to_pylist()
    assert [row.prompt for row in found] == [row["prompt"] for row in written]
    assert [row.pair for row in found] == [row["labels_of"] == "pair" for row in written]
    assert [row.split for row in found] == ["train"] * 30 + ["tune"] * 10
    assert [row.image is None for row in found] == [row["image"] is None for row in written]
