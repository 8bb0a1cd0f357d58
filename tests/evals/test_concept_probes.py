"""What is asked about concepts."""

from __future__ import annotations

from collections import Counter

import pytest

from safevlm.evals.concepts import make_probes
from safevlm.judges import LETTERS, Choice, Safety
from safevlm.labelled import ConceptSet
from tests.evals.concept_builders import ONE, THINGS, cells, measured


def test_letters_are_balanced_and_wrong_options_are_of_other_categories(concepts):
    probes = make_probes(concepts, ONE, seed=3, kinds=("perception",))
    assert len(probes) == len(concepts.images)
    assert set(Counter(probe.gold for probe in probes).values()) == {len(probes) // 4}
    category = {thing: name for name, things in THINGS.items() for thing in things}
    for probe in probes:
        assert probe.options[LETTERS.index(probe.gold.value)] == probe.concept
        assert len(set(probe.options)) == 4
        assert [category[option] for option in probe.options].count(probe.category) == 1
    assert make_probes(concepts, ONE, seed=3, kinds=("perception",)) == probes
    assert make_probes(concepts, ONE, seed=4, kinds=("perception",)) != probes
    with pytest.raises(ValueError, match="needs 3 concepts of other categories"):
        make_probes(ConceptSet("few", concepts.images[:12]), ONE)
    with pytest.raises(ValueError, match="unknown kinds"):
        make_probes(concepts, ONE, kinds=("sight",))


def test_a_context_has_both_answers_so_that_its_words_decide_nothing(concepts):
    probes = make_probes(concepts, ONE, kinds=("context",))
    for prompt in (*ONE.warning, *ONE.inviting):
        golds = Counter(probe.gold for probe in probes if probe.prompt == prompt)
        assert golds == {Safety.SAFE: 12, Safety.UNSAFE: 12}
    for said in ("Yes.", "No."):
        found = measured(probes, lambda probe, said=said: said if probe.prompt == ONE.warning[0] else "No.")
        assert cells(found, "all concepts")["context"].strict.value == 0.5
    one_class = ConceptSet("unsafe", tuple(image for image in concepts.images if image.unsafe))
    assert make_probes(one_class, ONE, kinds=("context",)) == []


def test_the_embedded_world_is_a_set_of_concepts():
    from safevlm.demo import embedded_concepts

    found = embedded_concepts(n=1, seed=0)
    kinds = {(image.category, image.unsafe) for image in found.images}
    assert {(name, True) for name in ("weapons", "substances", "fire", "hazards")} < kinds
    assert {("look-alikes", False), ("ordinary things", False)} < kinds
    assert len(found.images) == len(found.concepts)
    assert next(image for image in found.concepts if image.concept == "pistol").phrase == "a pistol"
    assert len(
        [probe for probe in make_probes(found, ONE, kinds=("perception",)) if probe.gold is Choice.A]
    ) in (
        len(found.images) // 4,
        len(found.images) // 4 + 1,
    )
