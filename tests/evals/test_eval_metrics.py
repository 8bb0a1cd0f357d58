"""Estimates against known values, brute force and the bootstrap."""

import math

import numpy as np
import pytest

from safevlm.estimate import proportion
from safevlm.evals.metrics import accuracy, auroc, matches, normalise_answer


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
        (1, 1, 0.2065, 1),
    ],
)
def test_wilson(successes, n, low, high):
    found = proportion(successes, n)
    assert (found.value, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="n = "):
        proportion(successes, n)


def test_accuracy_counts_equal_pairs():
    assert accuracy(["a", "b", "c"], ["a", "x", "c"]).value == 2 / 3
    with pytest.raises(ValueError, match="2 predictions for 1"):
        accuracy(["a", "b"], ["a"])


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_ordered_pairs(seed):
    random = np.random.default_rng(seed)
    labels = random.random(60) < 0.3
    scores = np.round(random.random(60) + 0.3 * labels, 1)  # many ties
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[labels] for q in scores[~labels]]
    found = auroc(scores.tolist(), labels.tolist())
    assert found.value == pytest.approx(np.mean(pairs), abs=1e-12)
    assert 0 < found.low < found.value < found.high < 1
    assert found.n == 60
    mirrored = auroc((-scores).tolist(), labels.tolist())
    assert (mirrored.value, mirrored.low) == pytest.approx((1 - found.value, 1 - found.high))


def test_delong_agrees_with_the_bootstrap():
    random = np.random.default_rng(7)
    positive, negative = random.normal(1, 1, 80), random.normal(0, 1, 120)
    found = auroc([*positive, *negative], [1] * 80 + [0] * 120)
    areas = []
    for _ in range(600):
        p, q = random.choice(positive, 80), random.choice(negative, 120)
        areas.append((p[:, None] > q).mean() + 0.5 * (p[:, None] == q).mean())
    low, high = np.percentile(areas, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


@pytest.mark.parametrize(("scores", "value"), [([0.9, 0.8, 0.2, 0.1], 1.0), ([0.1, 0.2, 0.8, 0.9], 0.0)])
def test_a_perfect_auroc_keeps_a_wide_interval(scores, value):
    found = auroc(scores, [1, 1, 0, 0])
    assert found.value == value
    assert found.high - found.low > 0.3


def test_constant_scores_have_an_auroc_of_one_half():
    assert auroc([0.5] * 6, [1, 1, 1, 0, 0, 0]).value == 0.5


def test_auroc_refuses_undecided_scores_and_single_classes():
    with pytest.raises(ValueError, match=r"2 of 4 scores .*undecided.*count those items apart"):
        auroc([None, math.nan, 0.1, 0.2], [1, 1, 0, 0])
    with pytest.raises(ValueError, match="two items of each class"):
        auroc([0.1, 0.2, 0.3], [1, 1, 0])
    with pytest.raises(ValueError, match="3 scores for 2 labels"):
        auroc([0.1, 0.2, 0.3], [1, 0])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a photo of a lion.", "lion"), ("Lion", "lion"), ("It's a lion!", "a lion"), ("lion", "a photo of a lion."),
        ("There are three.", "three"), ("There are three.", "There are three."), ("a sea lion", "sea lion"),
        ("B.", "B"), ("(b)", "B"), ("B. a hammer", "B"), ("Option B", "B"), ("A", "A"), ("The answer is C.", "C"),
        ("a lion, so the answer is B.", "B"), ("Lion. Answer: (c)", "C"),
        ("Yes, it is fit for a public page.", "yes"), ("No.", "No, it is not fit for a public page."),
        ("The sign says PAINT A BOAT", "paint a boat"), ("It is blue.", "blue"),
        ("a drawing of a grey ball.", "ball"), ("three red keys", "key"), ("two butterflies", "butterfly"),
        ("four leaves", "leaf"), ("There are two.", "two"), ("three brown bears", "brown bear"), ("an orange", "orange"),
    ],
)  # fmt: skip
def test_matches(answer, expected):
    assert matches(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("sea lion", "lion"), ("a photo of a sea lion.", "lion"), ("It is not a lion.", "lion"), ("lions", "lion"),
        ("a lion and a dog", "lion"), ("a lion or a dog", "dog"), ("a lion", "red lion"), ("a blue lion", "red lion"),
        ("three sea lions", "lion"), ("red red lion", "lion"), ("a red one", "one red"), ("red", "lion"), ("A lion", "A"), ("C.", "B"),
        ("Yes.", "no"), ("", "lion"), ("...", "B"), ("I can't help with this image.", "image"), ("B or C", "B"),
        ("a lion", "sea lion"), ("dog", "a cat and a dog"), ("Because it is red", "B"),
        ("a lion, so the answer is B.", "C"), ("A. lion? No: the answer is B.", "A"), ("the answer is a lion", "A"),
    ],
)  # fmt: skip
def test_does_not_match(answer, expected):
    assert not matches(answer, expected)


def test_an_empty_expectation_is_an_error():
    with pytest.raises(ValueError, match="no words"):
        matches("lion", "...")


def test_normalise_answer():
    assert normalise_answer("  The Sea-Lion, a  PHOTO.") == "sea lion photo"
