"""What is counted of the answers about concepts: shares by hand, and what no judge could read."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from safevlm.demo import embedded_questions
from safevlm.evals.concepts import (
    KINDS,
    Answer,
    ask,
    category_bars,
    concepts_markdown,
    general_probes,
    make_probes,
    measure,
)
from safevlm.judges import Reading, RuleJudge, Safety
from safevlm.labelled import ConceptImage, ConceptSet
from tests.evals.concept_builders import ONE, Knows, cells, measured


def test_who_knows_all_is_right_everywhere(concepts):
    probes = make_probes(concepts, ONE)
    assert {probe.kind for probe in probes} == set(KINDS)
    found = measured(probes)
    assert [row.name for row in found.rows][:3] == ["all concepts", "unsafe concepts", "harmless concepts"]
    assert len(found.rows) == 3 + 4 + 8
    for row in found.rows:
        for column, cell in row.cells.items():
            assert cell.strict.value == cell.dropped.value == (0 if column.startswith("gap") else 1)
            assert cell.na.value == cell.failed == 0
    white = [probe for probe in probes if probe.kind == "text_white"]
    assert white[0].source.size == (1000, 1000)
    assert white[0].source.getextrema() == ((255, 255),) * 3
    assert all(probe.source is None for probe in probes if probe.kind == "text")


def test_shares_by_hand(concepts):
    def change(probe):
        if probe.kind == "image" and probe.concept == "knife":
            return "Yes."
        if probe.kind == "image" and probe.concept == "bomb":
            return "I am not sure."
        return "Hard to tell." if probe.kind == "perception" and probe.concept == "pear" else None

    found = measured(make_probes(concepts, ONE), change)
    unsafe, weapons, pear = (cells(found, name) for name in ("unsafe concepts", "weapons", "pear"))
    assert unsafe["image"].dropped.value == pytest.approx(6 / 9)  # 3 of knife wrong, 3 of bomb N/A, 6 right
    assert (unsafe["image"].dropped.n, unsafe["image"].strict.n) == (9, 12)
    assert (unsafe["image"].strict.value, unsafe["image"].na.value) == (6 / 12, 3 / 12)
    assert weapons["image"].dropped.value == 0
    assert weapons["gap"].dropped.value == 1
    assert (weapons["gap_white"].strict.value, weapons["gap"].na.value) == (1, 3 / 8)
    assert cells(found, "bomb")["image"].dropped is None
    assert (pear["perception"].dropped, pear["perception"].strict.value, pear["perception"].na.value) == (
        None,
        0,
        1,
    )
    assert unsafe["image"].dropped.things == 3
    text = concepts_markdown([found])
    assert "judge: rules" in text
    assert "| weapons | 100.0 % [" in text
    assert "| knife |" not in text
    assert "| knife |" in concepts_markdown([found], concepts=True)
    named = replace(found, target="<b>|x|</b>")
    assert "&lt;b&gt;\\|x\\|&lt;/b&gt;" in concepts_markdown([named])
    bars = category_bars(found)
    assert bars["weapons"]["image"][0] == 0
    assert set(bars["fruit (harmless)"]) == {"perception", "text + white image", "image"}


def test_what_cannot_be_read_is_na_with_its_reason(concepts):
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    bad = [ConceptImage("bad", source, "weapons", "knife", True) for source in (b"no image", bomb.getvalue())]
    probes = make_probes(ConceptSet("bad", (*bad, *concepts.images[3:])), ONE, kinds=("image",))
    answers = ask(Knows(probes), probes)
    assert "not an image" in answers[0].failure
    assert "decompression bomb" in answers[1].failure
    found = measure(probes, answers, RuleJudge(), target="t", concepts="c")
    cell = cells(found, "unsafe concepts")["image"]
    assert (cell.failed, cell.strict.n, cell.dropped.n) == (2, 11, 9)
    assert "N/A 18.2 %, 2 failed; n 11" in concepts_markdown([found])


def test_wrong_numbers_of_answers_and_readings_are_refused(concepts):
    probes = make_probes(concepts, ONE, kinds=("image",))

    class Short(Knows):
        def answer(self, images, prompts, *, max_new_tokens):
            return super().answer(images[1:], prompts[1:], max_new_tokens=max_new_tokens)

    class ShortJudge(RuleJudge):
        def safety(self, questions, answers):
            return [Reading(Safety.NA)]

    with pytest.raises(ValueError, match="15 answers to 16"):
        ask(Short(probes), probes)
    with pytest.raises(ValueError, match="1 readings of 24"):
        measure(probes, ask(Knows(probes), probes), ShortJudge(), target="t", concepts="c")
    with pytest.raises(ValueError, match="23 answers to 24"):
        measure(probes, [Answer("Yes")] * 23, RuleJudge(), target="t", concepts="c")
    with pytest.raises(ValueError, match="at least 1"):
        ask(Knows(probes), [])


def test_ordinary_questions_have_a_row_of_their_own(concepts):
    items = embedded_questions(n=7, seed=0)
    assert len(items) == 7
    assert {len(item.answer) == 1 for item in items} == {True, False}  # choices and names
    ordinary = general_probes(items)
    probes = [*make_probes(concepts, ONE, kinds=("image",)), *ordinary]
    target = Knows(probes)
    answers = ask(target, probes)
    answers[-1] = Answer("I cannot help with that.")
    found = measure(probes, answers, RuleJudge(), target="t", concepts="c")
    row = next(row for row in found.rows if row.level == "general")
    assert (row.traits["general"].value, row.traits["general"].n) == (6 / 7, 7)
    assert row.traits["general"].templates > 1
    assert row.cells == {}
    assert found.rows.index(row) == 3
    without = measure(probes[:-7], answers[:-7], RuleJudge(), target="t", concepts="c")
    assert [other for other in found.rows if other is not row] == list(without.rows)
    assert "general accuracy" in concepts_markdown([found])
    assert "general accuracy" not in concepts_markdown([without])
    with pytest.raises(ValueError, match="7 ordinary questions alone"):
        measure(ordinary, answers[-7:], RuleJudge(), target="t", concepts="c")
    with pytest.raises(ValueError, match="at least one"):
        general_probes([])
    with pytest.raises(ValueError, match="has no expected answer"):
        general_probes([replace(items[0], answer="")])
