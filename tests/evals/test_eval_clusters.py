"""Cluster intervals against the iid bootstrap, known clusters, brute force and the functions of single items."""

import itertools

import numpy as np
import pytest

from safevlm.estimate import proportion
from safevlm.evals.clusters import (
    REPLICATES,
    clustered_auroc,
    clustered_difference,
    clustered_gap,
    clustered_proportion,
)
from safevlm.evals.metrics import auroc


def width(estimate):
    return estimate.high - estimate.low


def names(count):
    return [f"thing {i}" for i in range(count)]


def test_one_item_per_thing_gives_the_interval_of_independent_items():
    hits = np.random.default_rng(1).random(400) < 0.3
    found = clustered_proportion(hits.tolist(), names(400))
    normal = 2 * 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert found.value == hits.mean()
    assert (found.n, found.things, found.templates) == (400, 400, 0)
    assert width(found) == pytest.approx(normal, rel=0.08)


def test_things_that_agree_within_count_once_each():
    of_thing = (np.random.default_rng(2).random(40) < 0.4).tolist()
    hits = [hit for hit in of_thing for _ in range(25)]
    found = clustered_proportion(hits, [name for name in names(40) for _ in range(25)])
    assert found.value == np.mean(of_thing)
    assert width(found) == pytest.approx(width(clustered_proportion(of_thing, names(40))), rel=0.05)
    assert width(found) > 4 * width(proportion(sum(hits), len(hits)))


def test_templates_that_agree_within_count_once_each_too():
    hits = [template < 6 for template in range(20) for _ in range(30)]
    templates = [str(template) for template in range(20) for _ in range(30)]
    one_thing = clustered_proportion(hits, ["all"] * 600, templates)
    assert (one_thing.things, one_thing.templates) == (1, 20)
    assert width(one_thing) == pytest.approx(width(clustered_proportion(hits, templates)), rel=0.05)


def test_both_ways_equal_a_bootstrap_that_copies_items():
    rng = np.random.default_rng(3)
    things, templates = rng.integers(0, 12, 300), rng.integers(0, 4, 300)
    hits = rng.random(300) < 0.2 + 0.05 * things
    cells = {
        cell: hits[(things == cell[0]) & (templates == cell[1])]
        for cell in itertools.product(range(12), range(4))
    }
    means = []
    for _ in range(REPLICATES):
        drawn = itertools.product(rng.integers(0, 12, 12), rng.integers(0, 4, 4))
        means.append(np.concatenate([cells[cell] for cell in drawn]).mean())
    found = clustered_proportion(hits.tolist(), things.astype(str).tolist(), templates.astype(str).tolist())
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=0.02)


@pytest.mark.parametrize("hit", [True, False])
def test_items_that_all_agree_keep_the_wilson_interval(hit):
    found, wilson = clustered_proportion([hit] * 50, ["knife"] * 50), proportion(50 * hit, 50)
    assert (found.value, found.low, found.high) == (wilson.value, wilson.low, wilson.high)


def test_equal_items_give_equal_intervals():
    hits, things = [True, False, True, True] * 10, ["a", "b", "c", "d"] * 10
    assert clustered_proportion(hits, things) == clustered_proportion(hits, things)


def test_a_paired_difference_by_hand():
    before = [True] * 8 + [False] * 2
    after = [True] * 5 + [False] * 4 + [True]
    found = clustered_difference(before, after, names(10))
    assert found.value == pytest.approx(0.8 - 0.6)  # three lost, one won
    assert -1 <= found.low < found.value < found.high <= 1
    mirrored = clustered_difference(after, before, names(10))
    assert (mirrored.value, mirrored.low) == pytest.approx((-found.value, -found.high))


def test_a_difference_of_independent_items_has_the_normal_interval():
    rng = np.random.default_rng(4)
    before, after = rng.random(800) < 0.7, rng.random(800) < 0.6
    change = before.astype(float) - after
    found = clustered_difference(before.tolist(), after.tolist(), names(800))
    assert width(found) == pytest.approx(2 * 1.96 * change.std() / np.sqrt(800), rel=0.08)


def test_no_difference_at_all_is_as_uncertain_as_no_success():
    same = clustered_difference([True] * 30, [True] * 30, names(30))
    assert (same.value, same.low, same.high) == (0, -proportion(0, 30).high, proportion(0, 30).high)


def test_an_auroc_of_one_item_per_thing_is_that_of_independent_items():
    rng = np.random.default_rng(5)
    labels = (rng.random(400) < 0.4).tolist()
    scores = (rng.normal(0, 1, 400) + labels).tolist()
    found, delong = clustered_auroc(scores, labels, names(400)), auroc(scores, labels)
    assert (found.value, found.n, found.things) == (delong.value, 400, 400)
    assert width(found) == pytest.approx(width(delong), rel=0.1)


def test_an_auroc_counts_copies_of_a_thing_once():
    rng = np.random.default_rng(6)
    labels = [True] * 90 + [False] * 90
    scores = (np.round(rng.normal(0, 1, 180) + labels, 1)).tolist()  # with ties
    single = clustered_auroc(scores, labels, names(180))
    copied = clustered_auroc(scores * 15, labels * 15, names(180) * 15)
    assert copied.value == pytest.approx(single.value)
    assert width(copied) > 2 * width(auroc(scores * 15, labels * 15))
    assert width(copied) == pytest.approx(width(single), rel=0.1)


def test_a_perfect_auroc_keeps_a_wide_interval():
    found = clustered_auroc([0.9, 0.8, 0.2, 0.1], [True, True, False, False], ["a", "b", "c", "d"])
    assert found.value == 1
    assert width(found) > 0.3


def test_no_items_are_an_error():
    with pytest.raises(ValueError, match="n = 0"):
        clustered_proportion([], [])
    with pytest.raises(ValueError, match="n = 0"):
        clustered_difference([], [], [])


def test_a_gap_equals_a_bootstrap_that_copies_concepts():
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(15)]
    text = [(name, rng.random() < 0.9) for name in names for _ in range(5)]
    image = [(name, rng.random() < 0.1 + 0.05 * i) for i, name in enumerate(names) for _ in range(20)]
    found = clustered_gap(
        [h for _, h in text], [n for n, _ in text], [h for _, h in image], [n for n, _ in image]
    )
    gaps = []
    for _ in range(REPLICATES):
        drawn = rng.choice(names, len(names))
        parts = [
            np.concatenate([[h for n, h in side if n == name] for name in drawn]).mean()
            for side in (text, image)
        ]
        gaps.append(parts[0] - parts[1])
    assert found.value == pytest.approx(np.mean([h for _, h in text]) - np.mean([h for _, h in image]))
    assert (found.low, found.high) == pytest.approx(np.percentile(gaps, [2.5, 97.5]).tolist(), abs=0.03)
    assert (found.things, found.n) == (15, 375)
    with pytest.raises(ValueError, match="n = 0"):
        clustered_gap([], [], [True], ["a"])
