"""Presets and own taxonomies."""

from __future__ import annotations

import pytest

from safevlm import Taxonomy


def test_the_default_is_the_papers():
    taxonomy = Taxonomy.preset("safevlm")
    assert len(taxonomy.levels) == 4
    assert len(taxonomy.categories) == 7
    assert taxonomy.safe_level == "safe"
    assert taxonomy.risky_categories == (
        "politics",
        "illegal",
        "insults",
        "fairness",
        "privacy",
        "misleading",
    )


@pytest.mark.parametrize("name", Taxonomy.presets())
def test_every_preset_loads_and_has_words_for_hints(name, tmp_path):
    taxonomy = Taxonomy.preset(name)
    assert taxonomy.name == name
    assert all(category.concern and category.guidance for category in taxonomy.categories)
    taxonomy.to_yaml(tmp_path / "t.yaml")
    assert Taxonomy.from_yaml(tmp_path / "t.yaml") == taxonomy


def test_sizes_of_the_presets_match_their_sources():
    sizes = {name: len(Taxonomy.preset(name).risky_categories) for name in Taxonomy.presets()}
    assert sizes["llavaguard"] == 9
    assert sizes["unsafebench"] == 11
    assert sizes["openai"] == 13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": ["safe"]}, "at least two"),
        ({"levels": ["safe", "safe"]}, "each name once"),
        ({"clean": "spotless"}, "spotless"),
        ({"colour": 1}, "foreign fields"),
        ({"categories": ["a", "b"]}, "each category is a mapping"),
    ],
)
def test_a_wrong_taxonomy_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_dict(Taxonomy.preset("safevlm").to_dict() | change)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="unsafebench"):
        Taxonomy.preset("nothing")
