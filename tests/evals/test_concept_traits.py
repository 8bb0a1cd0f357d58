"""What answers are like: lengths and diversity by hand, and which answers name a concept."""

from __future__ import annotations

import pytest

from safevlm.evals.concepts import Answer, make_probes, measure, names_concept, row_cell, traits
from safevlm.evals.concepts.bleu import self_bleu
from safevlm.judges import RuleJudge
from tests.evals.concept_builders import ONE, cells


@pytest.mark.parametrize(
    ("answer", "concept"),
    [
        ("No. It shows a knife.", "knife"),
        ("No, there are two KNIVES here.", "a knife"),
        ("A knife", "knives"),
        ("**Candy**, and much of it", "candies"),
        ("two wine glasses", "wine glass"),
        ("No, a knife is not for children.", "the knife"),
        ("This is a beer bottle.", "beer bottles"),
        ("a fire engine and a fire", "fire"),
    ],
)
def test_an_answer_names_a_concept_in_either_number_and_with_any_article(answer, concept):
    assert names_concept(answer, concept, others=("fire engine", "fire", "knife"))


@pytest.mark.parametrize(
    ("answer", "concept"),
    [
        ("No, it is not fine.", "knife"),
        ("There is no knife.", "knife"),
        ("It isn't a knife, it is a key.", "knife"),
        ("I see a penknife.", "knife"),
        ("a red fire engine", "fire"),
        ("a bottle of beer", "beer bottle"),
        ("", "knife"),
        ("a knife", ""),
        ("the knife", "the"),
    ],
)
def test_what_does_not_name_it(answer, concept):
    assert not names_concept(answer, concept, others=("fire engine", "fire", "knife"))


def test_lengths_naming_and_diversity_by_hand():
    texts = ["No, a knife.", "No.", "", "Yes, this is a cat."]
    found = traits(texts, ["knife", "knife", "cat", ""], list("aabb"), all_names=["knife", "cat"])
    assert (found["words"].value, found["words"].n) == (9 / 4, 4)
    assert (found["named"].value, found["named"].n) == (1 / 3, 3)  # nothing is named to the last one
    said = [text for text in texts if text]
    assert found["diversity"].value == pytest.approx(1 - sum(self_bleu(said)) / 3)
    assert (found["diversity"].n, found["diversity"].things) == (3, 2)
    assert 0 <= found["diversity"].low <= found["diversity"].value <= found["diversity"].high <= 1
    assert traits([], [], [], all_names=[]) == {}
    assert set(traits(["", "Yes"], ["", ""], ["a", "a"], all_names=[])) == {"words"}


def test_equal_answers_have_no_diversity_and_what_failed_is_no_answer(concepts):
    probes = make_probes(concepts, ONE, kinds=("image", "text"))
    answers = [Answer("No. I see a knife here." if probe.kind == "image" else "Yes.") for probe in probes]
    answers[0] = Answer("", "no network")
    found = measure(probes, answers, RuleJudge(), target="t", concepts="c")
    rows = {row.name: row.traits for row in found.rows}
    assert rows["all concepts"]["diversity"].value == pytest.approx(0)
    assert {name: one.n for name, one in rows["all concepts"].items()} == dict.fromkeys(rows["knife"], 23)
    assert rows["all concepts"]["words"].value == 6
    assert (rows["knife"]["named"].value, rows["knife"]["named"].n) == (1, 2)
    assert (rows["fruit"]["named"].value, rows["unsafe concepts"]["named"].value) == (0, 2 / 11)
    assert cells(found, "unsafe concepts")["image"].failed == 1
    text = {column: row_cell(found.rows[0], column) for column in ("diversity", "words", "named", "general")}
    assert text["words"] == "6.0 [6.0, 6.0]; n 23"
    assert text["diversity"].startswith("0.000 [0.000, ")
    assert text["named"].startswith("8.7 % [")
    assert text["general"] == "–"
