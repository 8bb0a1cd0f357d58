"""The table of steering: counts by hand, costs by identities, and a run on the embedded model."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image

from safevlm.cli import main
from safevlm.evals import GuardResponder, collect
from safevlm.evals.clusters import clustered_mean
from safevlm.evals.steered import EcsoResponder, SteeredResponder, WordedResponder
from safevlm.evals.steering import (
    COLUMNS,
    SETTINGS,
    TWIN,
    answer_losses,
    steering_markdown,
    tabulate_steering,
    time_ratios,
)
from safevlm.evals.steering_rows import choose
from safevlm.guard import lm_losses
from safevlm.steering import self_reminder
from tests.evals.test_eval_mini import REFUSED, Item
from tests.steering.builders import method_of

COMPLIED = "Sure, here is how to do it: first get ready, then go on."


class Says:
    """Answers by what is in the prompt."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused

    def answer(self, items):
        return [REFUSED if any(word in item.prompt for word in self.refused) else COMPLIED for item in items]

    def assess(self, items):
        return None


@pytest.fixture
def sets():
    found = {}
    for name in SETTINGS:
        found[name] = [Item(None, f"harm {i}", "", "refuse", "weapons", f"thing {i}") for i in range(4)]
        found[name + TWIN] = [Item(None, f"help {i}", "", thing=f"thing {i}") for i in range(4)]
    return found


def test_every_cell_by_hand(sets):
    replies = collect({"plain": Says(), "steered": Says("harm 1", "harm 2", "help 3")}, sets)
    losses = {"plain": {"text": [0.0, 1.0, 2.0, math.nan]}}
    table = tabulate_steering(replies, sets, losses=losses, times={})
    assert set(table["plain"]) == set(COLUMNS)
    for name in SETTINGS:
        assert table["plain"][f"complied_{name}"].value == 1
        assert table["plain"][f"refused_{name}"].value == 0
        assert table["steered"][f"complied_{name}"].value == 0.5
        assert table["steered"][f"refused_{name}"].value == 0.25
    assert table["plain"]["perplexity"].value == pytest.approx(math.e)
    assert table["plain"]["perplexity"].n == 3
    assert table["steered"]["perplexity"] is None
    text = steering_markdown(table)
    assert "| steered | 50.0 % [" in text
    assert "n = 4 per cell" in text


def test_a_mean_is_as_sure_as_its_values():
    same = clustered_mean([2.0] * 5, list("abcde"))
    assert (same.value, same.low, same.high) == (2.0, 2.0, 2.0)
    wide = clustered_mean([0.0, 4.0] * 10, [str(i) for i in range(20)])
    assert wide.low < 2 < wide.high
    assert clustered_mean([0.0] * 10 + [4.0] * 10, ["a"] * 10 + ["b"] * 10).low == 0  # two things, not twenty
    for values in ([], [math.nan], [math.inf, 0.0]):
        with pytest.raises(ValueError, match="no mean"):
            clustered_mean(values, ["a"] * len(values))


def test_perplexity_is_that_of_the_plain_model_without_the_image(guard):
    items = [Item(Image.new("RGB", (30, 30), "red"), "What is this?", ""), Item(None, "And this?", "")]
    found = answer_losses(guard, ["a lion", " "], items)
    with guard.disabled(), torch.no_grad():
        expected = lm_losses(guard.backbone, guard.safety, [None], ["What is this?"], ["a lion"])
    assert found[0] == pytest.approx(float(expected))
    assert math.isnan(found[1])


def test_the_rows_answer_as_the_guard_does_in_their_blocks(guard):
    model = GuardResponder(guard, guard.policy, enabled=False, max_new_tokens=5)
    images = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    items = [Item(image, "What is this?", "") for image in images]
    method = method_of("vlm_guard", guard.backbone)
    options = {"max_new_tokens": 5, "min_new_tokens": 0, "do_sample": False}
    with guard.disabled(), guard.steered(method):
        expected = [reply.text for reply in guard.generate(images, ["What is this?"] * 2, **options)]
    assert SteeredResponder(model, (method,)).answer(items) == expected
    assert SteeredResponder(model).answer(items) == model.answer(items)
    worded = [Item(item.image, self_reminder(item.prompt), "") for item in items]
    assert WordedResponder(model, self_reminder).answer(items) == model.answer(worded)
    assert len(EcsoResponder(model).answer(items)) == 2
    assert all(row.assess(items) is None for row in (SteeredResponder(model), EcsoResponder(model)))


def test_plain_takes_as_long_as_itself(guard):
    plain = SteeredResponder(GuardResponder(guard, guard.policy, enabled=False))
    ratios = time_ratios({"plain": plain}, Item(Image.new("RGB", (30, 30)), "What is this?", ""), rounds=3)
    for found in ratios["plain"]:
        assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 3)


def test_the_settings_with_the_fewest_errors_are_chosen(guard, sets):
    made = {f"strength {s}": method_of("vlm_guard", guard.backbone, strength=s) for s in (0.0, 1.0)}
    model = GuardResponder(guard, guard.policy, enabled=False, max_new_tokens=3)
    few = {name: items[:1] for name, items in sets.items()}
    chosen = choose(model, made, few)
    alone = {settings: choose(model, {settings: method}, few).error for settings, method in made.items()}
    assert chosen.error == alone[chosen.settings] == min(alone.values())
    assert choose(model, dict(reversed(made.items())), few).error == chosen.error


def test_the_command_measures_the_embedded_model(capsys, monkeypatch):
    monkeypatch.setattr("safevlm.demo.ANCHORS", 40)
    monkeypatch.setattr("safevlm.demo.ROUNDS", 2)
    argv = "eval steering --n 1 --n_tune 1 --rows cmrm_sample,adapter --split tune --json"
    assert main(argv.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["table"]) == ["plain", "cmrm_sample", "adapter"]
    assert found["table"]["plain"]["first_token"]["value"] == 1
    assert list(found["chosen"]) == ["cmrm_sample"]


@pytest.mark.parametrize("wrong", [["--rows", "vlmguard"], ["--n", "0"]])
def test_wrong_flags_are_named(wrong, capsys):
    assert main(["eval", "steering", *wrong]) == 1
    assert wrong[0].strip("-") in capsys.readouterr().err
