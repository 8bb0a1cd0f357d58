"""Thresholds do what was asked for on the images they were chosen on, and no other threshold does it better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safevlm import Policy
from safevlm.errors import DataError
from safevlm.evals.thresholds import Target, choose_thresholds
from safevlm.types import Verdict
from tests.evals.builders import POLICY, TAXONOMY, mixed, scored


def flagged(images, policy, risky):
    found = [policy.assess(one.found).verdict is Verdict.UNSAFE for one in images if one.risky is risky]
    return sum(found) / len(found)


@pytest.mark.parametrize("per_category", [False, True])
@pytest.mark.parametrize("rate", [0.8, 0.95])
def test_a_recall_is_reached_by_the_greatest_threshold(rate, per_category):
    images = mixed(400)
    choice = choose_thresholds(images, POLICY, Target("recall", rate), per_category=per_category)
    assert flagged(images, choice.policy, True) == choice.whole.recall.value >= rate
    assert set(choice.categories) == ({"illegal", "privacy"} if per_category else set())
    for name, one in choice.categories.items():
        mine = [image for image in images if image.category == name]
        assert flagged(mine, choice.policy, True) == one.recall.value >= rate
        assert one.n == len(mine) == 100
    if not per_category:
        scores = sorted(one.found.score for one in images if one.risky)
        higher = replace(
            choice.policy, threshold=next(s for s in scores if s >= choice.policy.threshold) + 1e-9
        )
        assert flagged(images, higher, True) < rate


@pytest.mark.parametrize("per_category", [False, True])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_false_positives_stay_below_the_rate_by_the_least_threshold(rate, per_category):
    images = mixed(800)
    choice = choose_thresholds(images, POLICY, Target("false_positives", rate), per_category=per_category)
    assert flagged(images, choice.policy, False) == choice.whole.false_positives.value <= rate
    assert set(choice.categories) == ({"illegal", "privacy"} if per_category else set())
    if not per_category:
        scores = sorted((one.found.score for one in images if not one.risky), reverse=True)
        lower = replace(choice.policy, threshold=next(s for s in scores if s < choice.policy.threshold))
        assert flagged(images, lower, False) > rate


def test_a_category_with_few_images_shares_the_threshold_of_the_others():
    images = mixed(400) + [scored(0.9, category="politics", likeliest="politics") for _ in range(5)]
    choice = choose_thresholds(images, POLICY, Target("recall", 0.95), per_category=True)
    assert "politics" not in choice.policy.thresholds
    assert choice.left == {"politics": 5, "insults": 0, "fairness": 0, "misleading": 0}
    assert flagged(images, choice.policy, True) >= 0.95


def test_undecided_images_count_as_missed():
    images = mixed(400) + [scored(None, category="illegal") for _ in range(6)]
    choice = choose_thresholds(images, POLICY, Target("recall", 0.95))
    assert choice.whole.recall.n == 206
    assert choice.whole.recall.value >= 0.95
    images += [scored(None, category="illegal") for _ in range(20)]
    with pytest.raises(DataError, match="too many scores are 0, or missing"):
        choose_thresholds(images, POLICY, Target("recall", 0.95))


def test_too_few_images_and_odd_targets_are_refused():
    with pytest.raises(DataError, match="50 safe images .* at least 300 are needed"):
        choose_thresholds(mixed(100), POLICY, Target("false_positives", 0.01))
    with pytest.raises(DataError, match="50 risky images .* at least 60 are needed"):
        choose_thresholds(mixed(100), POLICY, Target("recall", 0.95))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Target("recall", 95)
    with pytest.raises(ValueError, match="has no threshold"):
        choose_thresholds(mixed(400), Policy(TAXONOMY, rule="argmax"), Target("recall", 0.9))


def test_the_rest_of_a_policy_stays_and_its_file_says_what_it_rests_on(tmp_path):
    base = Policy(TAXONOMY, off=frozenset({"politics"}), refusal="No.", thresholds={"illegal": 0.9})
    choice = choose_thresholds(mixed(400), base, Target("recall", 0.9))
    choice.policy.to_yaml(tmp_path / "policy.yaml", comment=f"{choice.text}\ndata: \x1b[31mx\rthreshold: 1.0")
    text = (tmp_path / "policy.yaml").read_text()
    assert text.startswith("# chosen for at least 90 % recall; on the same images:\n# all: threshold 0.")
    assert "\x1b" not in text
    again = Policy.from_yaml(tmp_path / "policy.yaml")
    assert again == choice.policy
    assert (again.refusal, again.off, dict(again.thresholds)) == ("No.", {"politics"}, {})
