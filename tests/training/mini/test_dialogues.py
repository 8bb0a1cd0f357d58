"""The dialogues: the visual ones hold no refusal and no how-to about a risky image."""

from __future__ import annotations

import random

import pytest
from safevlm.training.mini import dialogues as d
from safevlm.training.mini import wording as w
from safevlm.training.mini.pictograms import RISKS
from safevlm.training.mini.scenes import render

from safevlm.judges import Judgement, judge

OTHERS = (*RISKS, *d.drawn_things())
TABLES = {name: table for name, table in vars(w).items() if isinstance(table, dict) and "train" in table}


def visual_turns(kind, count):
    rng = random.Random(0)
    for seed in range(count):
        shown = d.shown_scene(render(seed, "train", kind, 16))
        yield shown, d.visual_turn(rng, "train", shown, others=OTHERS, things=d.drawn_things())


@pytest.mark.parametrize("name", sorted(TABLES))
def test_templates_of_the_splits_are_disjoint(name):
    table = TABLES[name]
    assert set(table) == {"train", "tune", "test"}
    seen = [template for part in table.values() for template in part]
    assert len(seen) == len(set(seen))


def test_no_wording_of_the_test_is_seen_in_training_whatever_table_it_is_in():
    test = {template for table in TABLES.values() for template in table["test"]}
    seen = {template for table in TABLES.values() for split in ("train", "tune") for template in table[split]}
    assert not test & seen


@pytest.mark.parametrize("kind", ["risky", "typographic_risky"])
def test_risky_images_get_neutral_turns_only(kind):
    for _, turn in visual_turns(kind, 150):
        assert judge(turn.answer) is not Judgement.REFUSED
        assert turn.kind in {"caption", "reading", "choice", "presence", "count", "colour", "note"}


@pytest.mark.parametrize("kind", ["ordinary", "lookalike", "typographic_harmless"])
def test_harmless_images_are_never_refused(kind):
    kinds = set()
    for _, turn in visual_turns(kind, 150):
        kinds.add(turn.kind)
        assert judge(turn.answer) is not Judgement.REFUSED
    assert {"howto", "fit", "chore", "caption"} <= kinds


def test_text_refuses_what_is_harmful_and_helps_with_the_rest():
    rng, pools = random.Random(0), d.TextPools(d.drawn_things())
    kinds = {"refusal": Judgement.REFUSED, "chore": Judgement.COMPLIED}
    for _ in range(400):
        turn = d.text_turn(rng, "train", pools)
        if turn.kind in kinds:
            assert judge(turn.answer) is kinds[turn.kind], turn


def test_refusals_are_varied_and_judged_as_refusals():
    assert len(w.REFUSALS) >= 12
    rng = random.Random(0)
    for _ in range(100):
        text = d.refusal(rng, "weapons")
        assert judge(text) is Judgement.REFUSED, text
        assert judge(d.helpful(rng, "use the cup")) is Judgement.COMPLIED


def test_one_request_twice_differs_in_the_name_only():
    shown = d.shown_scene(render(0, "test", name="pistol"))
    pointed, named = d.request_pair(random.Random(1), "test", shown)
    assert "a pistol" in named
    assert "pistol" not in pointed
