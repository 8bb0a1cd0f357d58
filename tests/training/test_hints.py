"""Hints of stage 2: those that the head gives at inference, its misses and false alarms included."""

from __future__ import annotations

import pytest
import torch
from safevlm.training.batch import collate
from safevlm.training.datamodule import SafetyDataModule
from safevlm.training.hints import every_hint, predicted_hints
from safevlm.training.joint import JointTraining

from safevlm import Policy
from safevlm.config import Calibration, OperatingPoint
from safevlm.guard import lm_losses
from safevlm.labelled.table import LabelledRow
from safevlm.viewing import head_output
from tests.guard.test_guard import counted
from tests.tiny import picture, tiny_guard

IMAGES = [picture(seed) for seed in range(4)]


class Alone(JointTraining):
    """Stage 2 without a trainer."""

    epoch = 0
    data = property(lambda self: self.given)
    current_epoch = property(lambda self: self.epoch)


def stage(guard, **options) -> Alone:
    made = Alone("none", **options)
    made.given = SafetyDataModule("t")
    made.use(guard)
    return made


def rigged(level: str, category: str):
    """A guard whose head finds this level and category in every image."""
    guard = tiny_guard()
    taxonomy = guard.config.taxonomy
    with torch.no_grad():
        for linear, names, name in (
            (guard.safety.head.level, taxonomy.levels, level),
            (guard.safety.head.category, taxonomy.category_names, category),
        ):
            linear.weight.zero_()
            linear.bias.fill_(-9.0)
            linear.bias[names.index(name)] = 9.0
    return guard


def batch_of(guard, labels: list[tuple[str, str]], *, images: bool = True):
    taxonomy = guard.config.taxonomy
    return collate(
        [
            (
                number,
                LabelledRow(
                    None, "", "What?", "No.", taxonomy.levels.index(level), taxonomy.category_names.index(category),
                    "train", "",
                ),
                picture(number) if images else None,
            )
            for number, (level, category) in enumerate(labels)
        ]
    )  # fmt: skip


def head_of(guard, batch):
    tower = guard.backbone.tower
    given = [image for image in batch["images"] if image is not None]
    return head_output(guard.safety, tower(tower.preprocess(given)).views) if given else None


MIXED = [("safe", "clean"), ("refuse", "illegal"), ("caution", "politics"), ("safe", "clean")]


def test_a_false_alarm_gets_its_hint_and_a_miss_gets_none():
    for level, category, expected in (("safe", "clean", ""), ("restrict", "privacy", None)):
        guard = rigged(level, category)
        made = stage(guard, hint_probability=1.0, false_hint_probability=0.0)
        batch = batch_of(guard, MIXED)
        expected = made.policy.hint(level, category) if expected is None else expected
        assert made.hints(batch, head_of(guard, batch)) == [expected] * 4


def test_by_labels_and_without():
    guard = rigged("restrict", "privacy")
    batch = batch_of(guard, MIXED)
    head = head_of(guard, batch)
    made = stage(guard, hints="labels", hint_probability=1.0, false_hint_probability=0.0)
    hint = made.policy.hint
    assert made.hints(batch, head) == ["", hint("refuse", "illegal"), hint("caution", "politics"), ""]
    assert (
        stage(guard, hints="none", hint_probability=1.0, false_hint_probability=1.0).hints(batch, head)
        == [""] * 4
    )


def test_predicted_hints_are_those_that_the_guard_puts_at_inference():
    guard = tiny_guard()
    guard.scorer.config = guard.config = guard.config.with_changes(
        calibration=Calibration(0.4, "t", 80, share=0.5, prior=0.3)
    )
    scores = sorted(found.score for found in guard.assess(IMAGES))
    point = OperatingPoint((scores[1] + scores[2]) / 2, 0.03, "t", 200)
    guard.config = guard.config.with_changes(operating_point=point)
    policy = stage(guard).policy
    assert policy == Policy.hints_only(guard.config.taxonomy, threshold=point.threshold)
    tower = guard.backbone.tower
    head = head_output(guard.safety, tower(tower.preprocess(IMAGES)).views)
    mixed = [IMAGES[0], None, *IMAGES[1:]]
    expected = [policy.decide(found).hint for found in guard.assess(IMAGES, policy=policy)]
    found = predicted_hints(guard.scorer, policy, head, mixed)
    assert found == [expected[0], "", *expected[1:]]
    assert sum(map(bool, found)) == 2
    assert predicted_hints(guard.scorer, policy, None, [None, None]) == ["", ""]


@pytest.mark.parametrize("source", ["predicted", "labels"])
def test_the_share_of_rows_with_a_hint_and_of_safe_rows_with_a_false_one(source):
    guard = rigged("safe", "clean") if source == "predicted" else tiny_guard()
    made = stage(guard, hints=source, hint_probability=0.3, false_hint_probability=0.2)
    batch = batch_of(guard, [("safe", "clean"), ("refuse", "illegal")] * 20)
    head = head_of(guard, batch)
    safe, risky = [], []
    for made.epoch in range(40):
        found = made.hints(batch, head)
        safe += found[::2]
        risky += found[1::2]
    assert sum(map(bool, safe)) / len(safe) == pytest.approx(0.2, abs=0.06)
    assert sum(map(bool, risky)) / len(risky) == pytest.approx(0.3 if source == "labels" else 0, abs=0.06)
    assert set(safe) - {""} == set(every_hint(made.policy))
    text = batch_of(guard, MIXED[:1] * 40, images=False)
    assert not any(made.hints(text, None))  # the guard says nothing about text alone


def test_hints_of_the_heads_output_share_its_tower_pass():
    guard = rigged("restrict", "privacy")
    made = stage(guard, hint_probability=1.0)
    batch = batch_of(guard, MIXED)
    texts = (batch["images"], batch["prompts"], batch["responses"])
    with counted(guard.backbone.tower.module.embeddings) as seen:
        output = guard(*texts, hints=lambda head: made.hints(batch, head))
    assert sum(seen) == 4
    hints = [made.policy.hint("restrict", "privacy")] * 4
    assert torch.equal(output.lm_losses, guard(*texts, hints=hints).lm_losses)
    assert torch.allclose(output.lm_losses, lm_losses(guard.backbone, guard.safety, *texts, hints=hints))
    assert not torch.allclose(output.lm_losses, guard(*texts).lm_losses)


def test_the_longest_hint_that_may_come_is_counted():
    guard = tiny_guard()
    row = LabelledRow(b"x", "", "What?", "No.", 0, 0, "train", "")
    count = len(
        max(
            (guard.backbone.tokenizer(h).input_ids for h in every_hint(Policy(guard.config.taxonomy))),
            key=len,
        )
    )

    def longest(row: LabelledRow = row, **options) -> int:
        return len(guard.backbone.tokenizer(stage(guard, **options)._longest_hint(row)).input_ids)

    assert longest() == longest(hints="labels", false_hint_probability=0.1) == count
    nothing = len(guard.backbone.tokenizer("").input_ids)
    assert longest(hints="labels", false_hint_probability=0) == nothing
    assert longest(hints="none") == nothing
    assert longest(hint_probability=0, false_hint_probability=0) == nothing


@pytest.mark.parametrize("name", ["hint_probability", "false_hint_probability"])
def test_shares_outside_their_range_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 1.5"):
        JointTraining("none", **{name: 1.5})
