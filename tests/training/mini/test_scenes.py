"""The scenes: same seed, same pixels; no split shares a shape, a font or a template."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safevlm.training.mini.backgrounds import PATTERNS
from safevlm.training.mini.boards import BOARDS
from safevlm.training.mini.brush import SPLIT_RANGES, Brush
from safevlm.training.mini.glyphs import STROKES
from safevlm.training.mini.lettering import FONTS, Style, line_mask
from safevlm.training.mini.phrases import notices, phrases
from safevlm.training.mini.pictograms import CATEGORIES, LEVELS, PICTOGRAMS
from safevlm.training.mini.scene_bank import CHUNK, open_bank
from safevlm.training.mini.scenes import KINDS, SPLITS, render


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_pixels(split, kind):
    first, second = render(5, split, kind), render(5, split, kind)
    assert np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, render(6, split, kind).image)
    assert first.image.size == (224, 224)
    assert first.image.mode == "RGB"


def test_the_geometry_does_not_depend_on_the_size():
    small, large = render(3, "train", name="pistol", size=64), render(3, "train", name="pistol", size=256)
    shrunk = np.asarray(large.image.resize((64, 64), Image.Resampling.BOX), dtype=float)
    assert np.abs(shrunk - np.asarray(small.image, dtype=float)).mean() < 6


@pytest.mark.parametrize("split", SPLITS)
def test_every_label_is_valid(split):
    for seed in range(60):
        scene = render(seed, split)
        assert scene.risk_level in LEVELS
        assert scene.risk_category in CATEGORIES
        assert scene.kind in KINDS
        assert (scene.risk_level == "safe") == (scene.risk_category == "clean") == ("risky" not in scene.kind)
        assert 1 <= scene.count <= 4
        assert bool(scene.twin) == (scene.kind == "lookalike")
        assert not scene.twin or PICTOGRAMS[scene.twin].kind == "risky"


def test_splits_share_no_proportion_no_variant_and_no_font():
    ranges = sorted(SPLIT_RANGES.values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))
    assert not set(FONTS["train"]) & set(FONTS["test"])
    assert set(BOARDS["train"]) & set(BOARDS["test"]) == {"none"}
    assert set(PATTERNS["test"]) - set(PATTERNS["train"])
    draw = ImageDraw.Draw(Image.new("RGB", (8, 8)))
    styles, parts = {}, {}
    for split in SPLITS:
        brush = Brush(draw, rng=random.Random(0), split=split, centre=(4, 4), radius=4)
        styles[split] = {brush.style(3) for _ in range(50)}
        parts[split] = [brush.part(2, 12) for _ in range(200)]
    assert not styles["train"] & styles["test"]
    for split, (start, stop) in SPLIT_RANGES.items():
        assert 2 + 10 * start <= min(parts[split]) < max(parts[split]) <= 2 + 10 * stop
        assert max(parts[split]) - min(parts[split]) > 0.9 * 10 * (stop - start)  # all of the range
    assert max(parts["train"]) < min(parts["tune"]) < max(parts["tune"]) < min(parts["test"])


@pytest.mark.parametrize("name", sorted(PICTOGRAMS))
def test_every_pictogram_is_visible_and_differs_between_splits(name):
    train, test = (np.asarray(render(0, split, name=name).image, dtype=int) for split in ("train", "test"))
    assert train.std() > 4
    assert test.std() > 4
    assert not np.array_equal(train, test)


def all_phrases(split):
    return [phrase for risky in (True, False) for phrase in phrases(split, risky=risky)]


@pytest.mark.parametrize("read", [all_phrases, notices])
def test_no_split_shows_words_of_another_and_tune_is_made_of_the_words_of_train(read):
    train, tune, test = (read(split) for split in SPLITS)
    assert len({*train, *tune, *test}) == len(train) + len(tune) + len(
        test
    )  # none twice, none with two labels
    assert {word for phrase in tune for word in phrase.split()} <= {
        w for phrase in train for w in phrase.split()
    }
    assert len(train) >= 120
    assert len(test) >= 60


def test_the_test_split_has_verbs_and_objects_that_training_never_shows():
    for risky in (True, False):
        seen = {word for phrase in phrases("train", risky=risky) for word in phrase.split()}
        new = [phrase for phrase in phrases("test", risky=risky) if not seen & set(phrase.split()[::-1][:1])]
        assert len(new) >= 30
    seen = {word for phrase in notices("train") for word in phrase.split()}
    assert any(not seen & set(phrase.split()) for phrase in notices("test"))


def test_neither_a_verb_nor_an_object_gives_a_phrase_away():
    risky, harmless = (
        [p for split in SPLITS for p in phrases(split, risky=risky)] for risky in (True, False)
    )
    assert {p.split()[-1] for p in risky} <= {p.split()[-1] for p in harmless}
    verbs, others = {p.split()[0] for p in risky}, {p.split()[0] for p in harmless}
    assert len(verbs & others) >= len(verbs) / 3


def test_phrases_refuse_an_unknown_split():
    with pytest.raises(ValueError, match="unknown split"):
        phrases("validation", risky=True)
    with pytest.raises(ValueError, match="unknown split"):
        notices("validation")


def test_every_character_has_a_glyph():
    assert {
        letter for split in SPLITS for p in (*all_phrases(split), *notices(split)) for letter in p
    } <= set(STROKES)


@pytest.mark.parametrize("font", [font for split in ("train", "test") for font in FONTS[split]])
def test_lettering_has_ink(font):
    mask = np.asarray(line_mask("BOAT", Style(font, weight=3)))
    assert mask.shape[1] > mask.shape[0] > 8
    assert 0.1 < (mask > 127).mean() < 0.9


def test_a_bank_is_rendered_once(tmp_path):
    first = open_bank(tmp_path, split="train", count=6, seed=1)
    again = open_bank(tmp_path, split="train", count=6, seed=1)
    assert first.pixels.shape == (6, 224, 224, 3)
    assert np.array_equal(again.pixels, first.pixels)
    assert first.facts == again.facts
    assert again.scene(2).name == first.facts[2]["name"]


def test_workers_render_what_one_process_does(tmp_path):
    bank = open_bank(tmp_path, split="test", count=CHUNK + 3, size=16)
    assert len(bank) == CHUNK + 3
    for index in (0, CHUNK, CHUNK + 2):
        assert np.array_equal(bank.pixels[index], render(index, "test", size=16).image)


def test_an_unknown_split_or_kind_is_refused():
    with pytest.raises(ValueError, match="unknown split"):
        render(0, "validation")
    with pytest.raises(ValueError, match="unknown kind"):
        render(0, "train", "gory")
