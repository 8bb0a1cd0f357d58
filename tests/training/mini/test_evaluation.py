"""The evaluation's items: worded for their split, paired, and marked with what they have in common."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safevlm.training.mini import wording as w
from safevlm.training.mini.evaluation import SETS, EvalItem, evaluation_sets
from safevlm.training.mini.pictograms import RISKS

from safevlm.evals import SETS as KNOWN
from safevlm.evals import matches

TABLES = [table for table in vars(w).values() if isinstance(table, dict) and "train" in table]
PACKS = {"photos": ("revolver", "lion", "tram"), "photos_native": ("handgun", "lamp", "jar")}


@pytest.fixture(scope="module")
def sets():
    return evaluation_sets("test", 9, 0)


@pytest.fixture
def photos(tmp_path):
    """Both packs: five risky and seven ordinary photographs of the test split each, no two alike."""
    for number, (pack, labels) in enumerate(PACKS.items()):
        rng = np.random.default_rng(number)
        rows = []
        for i in range(12):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(file, "PNG")
            label = "cup" if i == 11 else labels[0 if i < 5 else 1 + i % 2]
            rows.append(
                {
                    "image": {"bytes": file.getvalue(), "path": f"{i}.png"},
                    "label": label,
                    "caption": f"a photo of a {label}",
                    "risk_category": "weapons" if i < 5 else "none",
                    "risk_level": "refuse" if i < 5 else "safe",
                    "source": "made",
                    "split": "test",
                }
            )
        (tmp_path / pack).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / pack / "test-00000-of-00001.parquet")
    return tmp_path


def test_the_sets_are_those_that_are_evaluated(sets):
    assert SETS == KNOWN == tuple(sets)
    assert all(isinstance(item, EvalItem) for items in sets.values() for item in items)
    assert {name for name, items in sets.items() if not items} == {
        name for name in SETS if name.endswith(("photos", "native"))
    }
    assert {len(items) for items in sets.values()} == {0, 9}


def test_requests_are_the_same_with_and_without_a_picture(sets):
    for pointed, text, blank in zip(sets["risky_scenes"], sets["text"], sets["text_blank"], strict=True):
        assert text.image is None
        assert blank.image is not None
        assert text.prompt == blank.prompt != pointed.prompt
        assert pointed.thing in text.prompt
        assert pointed.thing not in pointed.prompt
        assert {(i.thing, i.template, i.risk_level, i.risk_category) for i in (pointed, text, blank)} == {
            (pointed.thing, pointed.template, *RISKS[pointed.thing])
        }


@pytest.mark.parametrize("split", ["test", "tune"])
def test_every_template_is_of_the_split_and_begins_the_prompt(split):
    templates = {template for table in TABLES for template in table[split]}
    for items in evaluation_sets(split, 6, 1).values():
        for item in items:
            assert item.template in templates
            assert item.prompt.startswith(item.template.partition("{")[0])


def test_what_is_written_is_the_thing(sets):
    assert len({item.thing for item in sets["typographic"]}) > 1
    assert all(item.risk_level == "refuse" for item in sets["typographic"])
    assert all(item.risk_level == "safe" for item in sets["words"])
    kinds = Counter(item.template in w.READING_QUESTIONS["test"] for item in sets["words"])
    assert kinds == {True: 5, False: 4}


def test_ordinary_items_ask_by_turns(sets):
    for name in ("ordinary_scenes", "lookalike"):
        kinds = [min(len(item.answer), 2) for item in sets[name]]
        assert kinds == [0, 2, 1] * 3
        for item in sets[name]:
            if len(item.answer) == 1:
                options = item.prompt.removeprefix(item.template)
                assert matches(options[options.index(f"{item.answer}. ") :], item.answer)
                assert f"{item.answer}. {item.thing}" in options


def test_a_set_is_the_same_alone(sets):
    for name, items in evaluation_sets("test", 9, 0, names=("words", "text_blank")).items():
        assert [(i.prompt, i.thing) for i in items] == [(i.prompt, i.thing) for i in sets[name]]
        assert all(
            np.array_equal(np.asarray(a.image), np.asarray(b.image))
            for a, b in zip(items, sets[name], strict=True)
        )
    with pytest.raises(ValueError, match=r"unknown sets \['wrods'\]; there are risky_scenes, "):
        evaluation_sets("test", 9, 0, names=("wrods",))


def test_photographs_come_once_each_and_from_their_pack(photos):
    sets = evaluation_sets("test", 6, 0, photos)
    for name, pack, n in (
        ("risky_photos", "photos", 5),
        ("risky_native", "photos_native", 5),
        ("ordinary_photos", "photos", 6),
        ("ordinary_native", "photos_native", 6),
    ):
        items = sets[name]
        assert len({item.image.tobytes() for item in items}) == len(items) == n
        assert {item.thing for item in items} <= {*PACKS[pack], "cup"}
        assert {item.risk_level != "safe" for item in items} == {name.startswith("risky")}
