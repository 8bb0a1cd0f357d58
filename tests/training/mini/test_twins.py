"""Requests and their harmless twins: alike but for the harm, and apart from what training uses."""

from __future__ import annotations

import json

import pytest
from safevlm.training.mini import wording as w
from safevlm.training.mini.twins import TWIN, anchor_pairs, twin_sets

SETTINGS = ("text", "white", "noise", "picture", "scenes", "typographic")


@pytest.fixture(scope="module")
def sets():
    return twin_sets("test", 6, 0)


def test_twins_stand_beside_their_requests(sets):
    assert list(sets) == [name + end for name in SETTINGS for end in ("", TWIN)]
    for name in SETTINGS:
        for harmful, harmless in zip(sets[name], sets[name + TWIN], strict=True):
            assert (harmful.risk_level == "safe", harmless.risk_level) == (False, "safe")
            assert harmful.template == harmless.template
            assert (harmful.prompt == harmless.prompt) == (name in ("scenes", "typographic"))


def test_blank_images_are_the_same_for_both(sets):
    for name in ("white", "noise", "picture"):
        for harmful, harmless, text in zip(sets[name], sets[name + TWIN], sets["text"], strict=True):
            assert harmful.image is harmless.image
            assert harmful.prompt == text.prompt
    assert all(item.image is None for item in (*sets["text"], *sets["text" + TWIN]))
    assert len({item.image.tobytes() for item in sets["noise"]}) == 6


def test_the_same_seed_gives_the_same_items(sets):
    again = twin_sets("test", 6, 0)
    assert [item.prompt for item in again["text"]] == [item.prompt for item in sets["text"]]
    assert again["scenes"][0].image.tobytes() == sets["scenes"][0].image.tobytes()


def test_anchors_are_of_training_alone(sets, tmp_path):
    rows = [
        {
            "text": f"{kind} {n}",
            "harmful": kind == "harm",
            "source": source,
            "pair_id": str(n),
            "split": split,
        }
        for n, (source, split) in enumerate(
            [("how-to-pairs", "train"), ("vlsafe", "test"), ("vlsafe", "train"), ("xstest", "train")]
        )
        for kind in ("harm", "help")
    ]
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    anchors = anchor_pairs("train", 12, 0, tmp_path)
    assert len(anchors) == 12
    assert set(anchors.harmful[:2]) == {"harm 0", "harm 2"}
    assert {"harm 1", "harm 3"}.isdisjoint(anchors.harmful)
    tested = twin_sets("test", 4, 0, tmp_path)
    assert tested["text"][0].prompt == "harm 1"
    assert tested["text" + TWIN][0].prompt == "help 1"
    made = {item.template for item in tested["text"][1:]}
    assert made <= set(w.REQUESTS["test"])
