"""The embedded world as a concept set on disk: what alignment reads of it."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from safevlm.training.align.data import AlignData
from safevlm.training.mini import concept_table
from safevlm.training.mini.concepts import scene_concepts

from safevlm.labelled import ConceptImage, ConceptSet, read_concepts

pytestmark = pytest.mark.training


def photograph(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_table_holds_the_world_and_alignment_splits_it(tmp_path, monkeypatch):
    shown = {
        "cat": ("photographed things", False),
        "rifle": ("weapons", True),
        "spoon": ("photographed things", False),
    }
    photos = [
        ConceptImage(name, photograph((40 * place, 0, 0)), category, name, unsafe, source="photos")
        for place, (name, (category, unsafe)) in enumerate(shown.items())
    ]
    monkeypatch.setattr(concept_table, "photo_concepts", lambda *_: ConceptSet("photographs", tuple(photos)))
    out = tmp_path / "folder" / "concepts.parquet"
    concept_table.write_concept_table(out, n=1, photos=tmp_path)
    found, drawn = read_concepts(out, n=None), scene_concepts("train", 1, 0)
    kinds = {one.concept: (one.category, one.unsafe) for one in (*photos, *drawn.images)}  # drawings decide
    assert {one.concept: (one.category, one.unsafe) for one in found.images} == kinds
    assert kinds["cat"] == ("ordinary things", False)
    assert [one.source for one in found.images].count("photos") == 3
    assert {one.image for one in found.images if one.source == "photos"} == {one.image for one in photos}

    data = AlignData(concepts=str(out), seed=1)
    data.read()
    assert data.split.held_out_questions
    assert {one.gold for one in data.split.held_out} == {"safe", "unsafe"}
    assert 2 * sum(data.sample(row, 0).gold == "unsafe" for row in range(len(data))) == len(data)
    with pytest.raises(ValueError, match="at least 1 image"):
        concept_table.write_concept_table(out, n=0)
