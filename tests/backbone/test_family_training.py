"""Both training stages on every family, through the command line's own path: cache, LoRA, folders that load again."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safevlm.training.cli import command

from safevlm import Policy, RiskScorer, SafeVLM
from safevlm.backbone import FAMILIES
from safevlm.guard import lm_losses
from tests.families import family_backbone
from tests.tiny import picture
from tests.training.builders import flags, png, rows, write_parquet

pytestmark = pytest.mark.training
SHAPES = [(16, 16), (40, 18), (20, 24), (16, 50)]
"""Width and height: one tile, several in a row or a column, one of a size of its own."""
OPTIONS = {
    "trainer.max_epochs": 4, "trainer.log_every_n_steps": 1, "model.schedule.lr": 5e-3, "data.tune_fraction": 0.0,
}  # fmt: skip
COLOURS = [(30, 220, 30), (220, 30, 30)]
IMAGES = [
    Image.blend(picture(n, SHAPES[n % 4]), Image.new("RGB", SHAPES[n % 4], COLOURS[n % 2]), 0.7)
    for n in range(8)
]
"""Green for safe rows, red for risky ones, in turn."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> SimpleNamespace:
    """Rows with an image each, and one without."""
    folder = tmp_path_factory.mktemp("tables")
    *made, text = rows(9)
    for row, image in zip(made, IMAGES, strict=True):
        row["image"] = {"bytes": png(image), "path": None}
    text |= {"image": None, "risk_level": "", "risk_category": ""}
    return SimpleNamespace(
        images=write_parquet(folder / "images.parquet", made),
        both=write_parquet(folder / "both.parquet", [*made, text]),
    )


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def stages(request, tables, tmp_path_factory) -> SimpleNamespace:
    """Stage 1 with its cache, then stage 2 with LoRA from its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    backbone = family_backbone(request.param)
    backbone.model.save_pretrained(folder / "backbone")
    backbone.processor.save_pretrained(folder / "backbone")
    cache = {"model.cache.folder": folder / "cache", "model.cache.precision": "float32"}
    head = command("head", flags(folder / "backbone", tables.images, folder / "head", **OPTIONS | cache))
    head.fit()
    lora = {"model.lora.r": 2, "model.checkpoint": folder / "head"}
    joint = command("joint", flags(folder / "backbone", tables.both, folder / "joint", **OPTIONS | lora))
    joint.fit()
    return SimpleNamespace(folder=folder, head=head.model, joint=joint.model)


def losses(folder: Path, stage: str, column: str) -> list[float]:
    with next((folder / f"{stage}.run").glob("csv/*/metrics.csv")).open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_both_stages_lower_the_loss(stages, stage):
    for column in ("train/loss", "train/lm"):
        seen = losses(stages.folder, stage, column)
        assert sum(seen[-2:]) < sum(seen[:2]), (column, seen)


def test_the_cache_holds_every_view_that_the_tower_sees(stages):
    rows, tower = stages.head.data.rows, stages.head.tower
    cached = stages.head.features.read([row.key for row in rows], channels=tower.dim)
    seen = tower(tower.preprocess([row.open() for row in rows])).views
    assert cached.owners == seen.owners
    for (own, grid), (features, expected) in zip(cached, seen, strict=True):
        assert grid == expected
        torch.testing.assert_close(own, features, rtol=1e-4, atol=1e-4)


def test_cached_features_give_the_answer_losses_of_the_towers_own_pass(stages):
    head, rows = stages.head, stages.head.data.rows
    images = [row.open() for row in rows]
    prompts, answers = [row.prompt for row in rows], [row.response for row in rows]
    cached = head.tower.unpack(head.features.read([row.key for row in rows]))
    given = (head.guard.backbone, head.safety, images, prompts, answers)
    with torch.no_grad():
        expected, found = lm_losses(*given), lm_losses(*given, passed=cached)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_folders_load_with_the_scores_and_answers_that_were_trained(stages, stage):
    trained, folder = getattr(stages, stage).guard, stages.folder / stage
    again, alone = SafeVLM.from_pretrained(folder), RiskScorer.from_pretrained(folder)
    assert again.has_lora == (stage == "joint")
    prompts = ["What is this?"] * len(IMAGES)
    expected = [one.score for one in trained.assess(IMAGES, prompts)]
    assert len(set(expected)) > 1
    assert [one.score for one in again.assess(IMAGES, prompts)] == expected
    assert [one.score for one in alone.assess(IMAGES, prompts)] == pytest.approx(expected, abs=1e-6)
    everything = Policy(again.config.taxonomy, off=frozenset(again.config.taxonomy.risky_categories))
    options = {"policy": everything, "max_new_tokens": 4, "do_sample": False}
    own, others = (guard.generate(IMAGES[:2], prompts[:2], **options) for guard in (trained, again))
    assert [reply.text for reply in own] == [reply.text for reply in others]
