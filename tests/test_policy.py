"""Scores -> verdicts, actions, hints: three states, thresholds, switches, round trips."""

from __future__ import annotations

import math

import pytest

from safevlm import Policy, Taxonomy
from safevlm.types import Action, Risk, Verdict

PAPER = Taxonomy.preset("safevlm")


def risk(score: float, *, level: str = "caution", category: str = "privacy") -> Risk:
    """A risk whose mass lies on one risky level and one category (the rest of the latter on politics)."""
    levels = dict.fromkeys(PAPER.levels, 0.0) | {"safe": 1 - score, level: score}
    categories = dict.fromkeys(PAPER.category_names, 0.0) | {category: 0.75, "politics": 0.25}
    return Risk(score, levels, categories)


@pytest.mark.parametrize(
    ("score", "verdict"), [(0.0, "safe"), (0.49, "safe"), (0.5, "unsafe"), (1.0, "unsafe")]
)
def test_default_threshold_is_one_half(score, verdict):
    assert Policy(PAPER).assess(risk(score)).verdict.value == verdict


@pytest.mark.parametrize("score", [None, math.nan])
def test_no_score_is_undecided_and_not_allowed(score):
    assessment = Policy(PAPER).assess(Risk(score, reason="broken file"))
    assert assessment.verdict is Verdict.UNDECIDED
    assert assessment.score is None
    assert assessment.level is None
    assert Policy(PAPER).decide(assessment).action is Action.REFUSE
    with pytest.raises(ValueError, match="never safe"):
        Policy(PAPER, undecided=Action.ALLOW)


def test_level_decides_the_action_and_the_hint():
    policy = Policy(PAPER)
    actions = {
        level: policy.decide(policy.assess(risk(0.9, level=level))).action for level in PAPER.risky_levels
    }
    assert actions == {"caution": Action.HINT, "restrict": Action.HINT, "refuse": Action.REFUSE}
    decision = policy.decide(policy.assess(risk(0.9, level="caution")))
    assert decision.hint == policy.hint("caution", "privacy")
    assert policy.decide(policy.assess(risk(0.1))).hint == ""


def test_hints_only_never_refuses_by_itself():
    policy = Policy.hints_only(PAPER)
    for level in PAPER.risky_levels:
        assert policy.decide(policy.assess(risk(0.9, level=level))).action is Action.HINT


def test_there_is_a_hint_for_every_level_and_category_and_they_differ():
    policy = Policy(PAPER)
    hints = {(lv, c): policy.hint(lv, c) for lv in PAPER.risky_levels for c in PAPER.risky_categories}
    assert len(hints) == 18
    assert len(set(hints.values())) == 18
    assert all("{" not in hint for hint in hints.values())
    assert all("Refuse" in policy.hint("refuse", c) for c in PAPER.risky_categories)


def test_thresholds_per_category():
    policy = Policy(PAPER, thresholds={"privacy": 0.9})
    assert policy.assess(risk(0.8)).verdict is Verdict.SAFE
    assert policy.assess(risk(0.8, category="fairness")).verdict is Verdict.UNSAFE


def test_a_category_that_is_off_drops_out_with_its_share():
    policy = Policy(PAPER, off=frozenset({"privacy"}))
    assessment = policy.assess(risk(1.0))  # three quarters of the risk are privacy's
    assert assessment.verdict is Verdict.SAFE
    assert assessment.score == 1.0
    low = Policy(PAPER, threshold=0.25, off=frozenset({"privacy"})).assess(risk(1.0))
    assert (low.verdict, low.category) == (Verdict.UNSAFE, "politics")
    everything = Policy(PAPER, off=frozenset(PAPER.risky_categories))
    assert everything.decide(everything.assess(risk(1.0))).action is Action.ALLOW


def test_an_undecided_image_outweighs_a_safe_one():
    policy = Policy(PAPER)
    safe, undecided = policy.assess(risk(0.1)), policy.assess(Risk(None, reason="x"))
    risky = policy.assess(risk(0.9, level="refuse"))
    assert policy.riskiest([safe, undecided]) is undecided
    assert policy.riskiest([safe, risky]) is risky
    with pytest.raises(ValueError, match="no assessments"):
        policy.riskiest([])


def test_at_a_low_threshold_the_most_probable_risky_level_and_category_decide():
    levels = dict(zip(PAPER.levels, (0.78, 0.06, 0.12, 0.04), strict=True))
    categories = dict.fromkeys(PAPER.category_names, 0.0) | {
        PAPER.clean: 0.9,
        "privacy": 0.07,
        "politics": 0.03,
    }
    low, usual = Policy(PAPER, threshold=0.2), Policy(PAPER)
    found = low.assess(Risk(0.22, levels, categories))
    assert (found.verdict, found.level, found.category) == (Verdict.UNSAFE, "restrict", "privacy")
    assert low.decide(found).action is Action.HINT
    assert (found.threshold, usual.assess(Risk(0.22, levels, categories)).threshold) == (0.2, 0.5)
    assert usual.assess(Risk(0.22, levels, categories)).verdict is Verdict.SAFE


def test_an_assessment_names_the_threshold_of_its_category():
    policy = Policy(PAPER, threshold=0.3, thresholds={"privacy": 0.9})
    assert policy.assess(risk(0.8)).threshold == 0.9
    assert policy.assess(risk(0.8, category="fairness")).threshold == 0.3
    assert policy.assess(Risk(None, reason="x")).threshold is None


@pytest.mark.parametrize(
    ("levels", "categories", "flagged"),
    [
        ((0.4, 0.2, 0.2, 0.2), {"privacy": 0.9, "clean": 0.1}, False),  # safe, although P(unsafe) is 0.6
        ((0.3, 0.1, 0.4, 0.2), {"privacy": 0.4, "clean": 0.6}, False),
        ((0.3, 0.1, 0.4, 0.2), {"privacy": 0.6, "clean": 0.4}, True),
        ((0.3, 0.1, 0.4, 0.2), {"politics": 0.6, "clean": 0.4}, False),  # switched off
    ],
)
def test_by_the_argmax_level_and_category_must_both_be_risky(levels, categories, flagged):
    policy = Policy(PAPER, rule="argmax", off=frozenset({"politics"}))
    found = policy.assess(
        Risk(
            1 - levels[0],
            dict(zip(PAPER.levels, levels, strict=True)),
            dict.fromkeys(PAPER.category_names, 0.0) | categories,
        )
    )
    assert (found.verdict is Verdict.UNSAFE) is flagged
    assert (found.level, found.category) == (("restrict", "privacy") if flagged else ("safe", "clean"))
    assert found.threshold is None


def test_the_argmax_in_yaml(tmp_path):
    (tmp_path / "p.yaml").write_text("taxonomy: safevlm\nrule: argmax\n")
    policy = Policy.from_yaml(tmp_path / "p.yaml")
    assert policy == Policy(PAPER, rule="argmax")
    assert Policy.from_dict(policy.to_dict()) == policy
    assert policy.sha256 != Policy(PAPER).sha256
    assert "rule" not in Policy(PAPER).to_dict()


def test_yaml_round_trip_keeps_every_field(tmp_path):
    policy = Policy(
        PAPER,
        threshold=0.4,
        thresholds={"politics": 0.7},
        actions={"caution": Action.ALLOW},
        off=frozenset({"misleading"}),
        undecided=Action.HINT,
        refusal="Nein.",
        hints={"restrict": {"fairness": "Mind: “quotes”\nand lines."}},
    )
    policy.to_yaml(tmp_path / "policy.yaml")
    again = Policy.from_yaml(tmp_path / "policy.yaml")
    assert again == policy
    assert again.sha256 == policy.sha256
    assert Policy(PAPER).sha256 != policy.sha256


def test_yaml_may_name_a_preset_or_leave_the_taxonomy_to_the_model(tmp_path):
    (tmp_path / "a.yaml").write_text("taxonomy: openai\nthreshold: 0.3\n")
    assert Policy.from_yaml(tmp_path / "a.yaml").taxonomy == Taxonomy.preset("openai")
    (tmp_path / "b.yaml").write_text("threshold: 0.3\n")
    assert Policy.from_yaml(tmp_path / "b.yaml", PAPER).taxonomy is PAPER
    with pytest.raises(ValueError, match="no taxonomy"):
        Policy.from_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0}, r"not in \(0, 1\]"),
        ({"thresholds": {"privacy": 1.5}}, r"not in \(0, 1\]"),
        ({"thresholds": {"weather": 0.5}}, "weather"),
        ({"actions": {"safe": "hint"}}, "safe"),
        ({"actions": {"caution": "explode"}}, "explode"),
        ({"off": ["clean"]}, "clean"),
        ({"refusal": " "}, "refusal is empty"),
        ({"colour": "red"}, "foreign fields"),
        ({"hints": {"caution": {"weather": "x"}}}, "weather"),
        ({"rule": "mode"}, "it is one of threshold, argmax"),
        ({"rule": "argmax", "threshold": 0.2}, "uses no threshold"),
        ({"rule": "argmax", "thresholds": {"privacy": 0.2}}, "uses no threshold"),
    ],
)
def test_a_wrong_policy_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Policy.from_dict({"taxonomy": "safevlm", **values})


@pytest.mark.parametrize("score", [math.inf, -math.inf, -0.1, 1.1])
def test_a_score_outside_its_range_is_undecided(score):
    base = risk(0.5)
    odd = Risk(score, base.level_probabilities, base.category_probabilities)
    assert Policy(PAPER).assess(odd).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("off", [frozenset(), frozenset({"politics"})])
def test_category_probabilities_that_are_not_numbers_are_undecided(off):
    nan = dict.fromkeys(PAPER.category_names, math.nan)
    odd = Risk(0.9, risk(0.9).level_probabilities, nan)
    assert Policy(PAPER, off=off).assess(odd).verdict is Verdict.UNDECIDED


def test_no_category_at_all_does_not_excuse_a_high_score():
    nothing = dict.fromkeys(PAPER.category_names, 0.0) | {"clean": 1.0}
    odd = Risk(0.99, risk(0.99).level_probabilities, nothing)
    assert Policy(PAPER, off=frozenset({"politics"})).assess(odd).verdict is Verdict.UNSAFE


def test_a_threshold_of_its_own_counts_for_a_category_that_does_not_lead():
    low = risk(0.4)  # a quarter of it, 0.1, is politics'
    assert Policy(PAPER).assess(low).verdict is Verdict.SAFE
    found = Policy(PAPER, thresholds={"politics": 0.1}).assess(low)
    assert (found.verdict, found.category) == (Verdict.UNSAFE, "politics")


def test_yaml_as_people_write_it(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("taxonomy: safevlm\noff: [privacy]\nthresholds:\n")
    assert Policy.from_yaml(path).off == frozenset({"privacy"})
    path.write_text("taxonomy: [unclosed")
    with pytest.raises(ValueError, match=r"policy\.yaml is not YAML"):
        Policy.from_yaml(path)


def test_a_policy_of_another_taxonomy_does_not_fit():
    Policy(PAPER).check_fits(PAPER)
    with pytest.raises(ValueError, match="openai.*the model's is 'safevlm'"):
        Policy(Taxonomy.preset("openai")).check_fits(PAPER)


ALIASES = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
"""A file of 600 bytes whose value has 10^9 items when it is printed."""


def below(key: str, text: str) -> str:
    return f"{key}:\n" + "".join(f"  {line}\n" for line in text.splitlines())


REFUSED = {
    "threshold is a word": "threshold: high",
    "threshold in quotes": "threshold: '0.5'",
    "threshold is true": "threshold: true",
    "threshold is a date": "threshold: 2020-01-01",
    "threshold is binary": "threshold: !!binary aGVsbG8=",
    "threshold is a list": "threshold: [0.5]",
    "threshold is not a number": "threshold: .nan",
    "threshold of 5,000 digits": f"threshold: {'9' * 5000}",
    "threshold within itself": "threshold: &a [*a]",
    "own threshold is true": "thresholds: {privacy: true}",
    "own threshold is a word": "thresholds: {privacy: high}",
    "thresholds are a number": "thresholds: 5",
    "thresholds of mixed keys": "thresholds: {1: 0.5, a: 0.5}",
    "actions are a word": "actions: hint",
    "actions are a list": "actions: [hint]",
    "an action is a list": "actions: {caution: [hint]}",
    "off is a number": "off: 5",
    "off is a word": "off: privacy",
    "off is a mapping": "off: {privacy: 1}",
    "off is nested": "off: [[privacy]]",
    "undecided is a list": "undecided: [refuse]",
    "refusal is a number": "refusal: 5",
    "refusal is a list": "refusal: [x]",
    "hints are a list": "hints: [caution]",
    "a level's hints are a text": "hints: {caution: hello}",
    "a level's hints are nothing": "hints: {caution: ~}",
    "a hint is a number": "hints: {caution: {privacy: 5}}",
    "foreign keys of mixed types": "{1: 2, nope: 3}",
    "a key twice": "threshold: 0.5\nthreshold: 0.9",
    "a key twice, inside": "thresholds: {privacy: 0.5, privacy: 0.9}",
    "two documents": "threshold: 0.5\n---\nthreshold: 0.6",
    "code": "!!python/object/apply:os.getcwd []",
    "levels are a number": "taxonomy: {name: x, levels: 5, categories: [{name: c}, {name: b}], clean: c}",
    "levels are text": "taxonomy: {name: x, levels: ab, categories: [{name: c}, {name: b}], clean: c}",
    "a level is a number": "taxonomy: {name: x, levels: [1, 2], categories: [{name: c}, {name: b}], clean: c}",
    "a level is true": "taxonomy: {name: x, levels: [no, yes], categories: [{name: c}, {name: b}], clean: c}",
    "a level has an escape": 'taxonomy: {name: x, levels: [a, "\\e[31m"], categories: [{name: c}, {name: b}], clean: c}',
    "categories are a number": "taxonomy: {name: x, levels: [a, b], categories: 5, clean: c}",
    "a category's name is a list": "taxonomy: {name: x, levels: [a, b], categories: [{name: [1]}, {name: b}], clean: b}",
    "a category's concern is a number": "taxonomy: {name: x, levels: [a, b], categories: [{name: c, concern: 1}, {name: b}], clean: b}",
    "taxonomy with mixed foreign keys": "taxonomy: {name: x, levels: [a, b], categories: [], clean: b, 1: 2, z: 3}",
    "taxonomy within itself": "taxonomy: &a {name: *a, levels: *a, categories: [], clean: b}",
    "aliases as the policy": ALIASES,
    "aliases as the taxonomy": below("taxonomy", ALIASES),
    "aliases as the threshold": below("threshold", ALIASES),
    "aliases as a name in off": below("off", ALIASES),
    "aliases as undecided": below("undecided", ALIASES),
    "aliases as the refusal": below("refusal", ALIASES),
    "deep": "[" * 5000,
    "deep and closed": "threshold: " + "[" * 3000 + "]" * 3000,
    "larger than a policy": "refusal: " + "x" * (1 << 20),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_malformed_file_is_one_line_that_says_what_is_wrong(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r".") as caught:
        Policy.from_yaml(path, PAPER)
    assert len(str(caught.value)) < 1500
    assert str(caught.value).isprintable()


def test_aliases_within_their_types_are_read(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("refusal: &sorry No.\nhints: {caution: {privacy: *sorry}}\n", "utf-8")
    policy = Policy.from_yaml(path, PAPER)
    assert (policy.refusal, policy.hints["caution"]["privacy"]) == ("No.", "No.")
