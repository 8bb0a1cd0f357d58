"""Rows whose labels are those of image and prompt together, and rows with words that a reader found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safevlm.training.batch import collate
from safevlm.training.datamodule import SafetyDataModule
from safevlm.training.options import Loss
from safevlm.training.resume import rows_digest
from safevlm.training.tuning import asked_texts, stacked, tune_metrics, tune_rows

from safevlm.labelled.table import LabelledRow
from safevlm.types import IGNORED
from safevlm.viewing import head_output
from tests.tiny import picture, tiny_guard
from tests.training.test_hints import Alone

ROWS = [
    LabelledRow(b"x", key, prompt, "", level, category, "tune", "", pair=pair)
    for key, prompt, level, category, pair in (
        ("blank", "Make a bomb", 3, 1, True),
        ("blank", "Wash a car", 0, 6, True),
        ("blank", "", 0, 6, False),
        ("knife", "What is this?", 2, 1, False),
        ("knife", "How long is it?", 2, 1, False),
        ("unknown", "Hi", IGNORED, IGNORED, False),
        ("unknown", "Hello", 0, 6, False),
    )
]
BATCH = collate([(number, row, picture(number)) for number, row in enumerate(ROWS)])


@pytest.mark.parametrize(("probability", "read"), [(1e-9, [True, True, False, False]), (0.0, [False] * 4)])
def test_the_prompt_of_a_pair_is_read_in_every_epoch(probability, read):
    stage = Alone("none", loss=Loss(prompt_probability=probability))
    stage.given = SafetyDataModule("t")
    for stage.epoch in range(3):
        assert [bool(prompt) for prompt in stage.head_prompts(BATCH)][:4] == read


def test_words_that_were_read_are_read_in_every_epoch_alone_or_after_the_prompt():
    rows = [replace(row, read_text="EXIT") for row in (*ROWS[:4], ROWS[2])]
    batch = collate([(number, row, None) for number, row in enumerate(rows)])
    stage = Alone("none", loss=Loss(prompt_probability=1e-9))
    stage.given = SafetyDataModule("t")
    seen: list[set[str]] = [set() for _ in rows]
    for stage.epoch in range(12):
        for texts, text in zip(seen, stage.head_prompts(batch), strict=True):
            texts.add(text)
    assert seen == [{"EXIT", f"{row.prompt}\nEXIT"} if row.prompt else {"EXIT"} for row in rows]
    assert asked_texts(batch) == ["EXIT"] * len(rows)
    assert asked_texts(BATCH) == BATCH["prompts"]
    silent = Alone("none", loss=Loss(prompt_probability=0.0))
    assert silent.head_prompts(batch) == [""] * len(rows)


def test_a_resumed_run_sees_changed_words_and_pairs():
    changed = [replace(ROWS[0], pair=False), *ROWS[1:]], [replace(ROWS[0], read_text="EXIT"), *ROWS[1:]]
    assert len({rows_digest(ROWS), *map(rows_digest, changed)}) == 3


@torch.no_grad()
def test_its_label_counts_for_image_and_prompt_alone():
    guard = tiny_guard()
    guard.safety.head.prompt.weight.normal_()
    tower, table = guard.backbone.tower, guard.backbone.prompt_table
    views = tower(tower.preprocess(BATCH["images"])).views
    outputs = [
        head_output(guard.safety, views, table=table, prompts=texts)
        for texts in ([""] * len(ROWS), BATCH["prompts"])
    ]
    found = stacked(tune_rows(BATCH, *outputs, list(range(len(ROWS)))))
    assert found["levels_prompt"].tolist() == [3, 0, IGNORED, 2, 2, IGNORED, 0]
    assert found["levels"].tolist() == [IGNORED, IGNORED, 0, 2, 2, IGNORED, 0]
    assert found["categories"].tolist() == [IGNORED, IGNORED, 6, 1, 1, IGNORED, 6]

    def auroc(logits: torch.Tensor, rows: list[int]) -> float:
        scores = (1 - logits.softmax(-1)[:, 0]).tolist()
        pairs = [(r, s) for r in rows for s in rows if ROWS[r].level > 0 and ROWS[s].level == 0]
        return sum((scores[r] > scores[s]) + 0.5 * (scores[r] == scores[s]) for r, s in pairs) / len(pairs)

    metrics = tune_metrics(found)
    assert float(metrics["tune/auroc"]) == pytest.approx(auroc(outputs[0].logits()[0], [2, 3, 4, 6]))
    assert float(metrics["tune/auroc_prompt"]) == pytest.approx(
        auroc(outputs[1].logits()[0], [0, 1, 3, 4, 6])
    )


def test_without_prompts_a_pair_has_no_label():
    stage = Alone("none", loss=Loss(prompt_probability=0.0))
    guard = tiny_guard()
    views = guard.backbone.tower(guard.backbone.tower.preprocess(BATCH["images"])).views
    output, rows = head_output(guard.safety, views), list(range(len(ROWS)))
    parts = stage.head_loss(output, rows, BATCH)
    without = dict(BATCH, levels=BATCH["levels"].clone(), categories=BATCH["categories"].clone())
    without["levels"][:2], without["categories"][:2] = IGNORED, IGNORED
    reading = Alone("none", loss=Loss(prompt_probability=0.5)).head_loss(output, rows, without)
    assert all(torch.equal(parts[name], reading[name]) for name in parts)
    assert float(parts["level"].detach()) > 0
