"""Which weights a run writes: the best epoch's, calibrated on themselves, or the last."""

from __future__ import annotations

import csv

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from safevlm.training.cli import command
from safevlm.training.export import write_whole
from safevlm.training.refusals import asked_rows, refusal_metrics, refused

from safevlm import SafeVLM
from safevlm.calibration import fit_temperature
from safevlm.errors import TrainingError
from safevlm.guard import lm_losses
from safevlm.labelled.table import LabelledRow
from tests.training.builders import flags, rows, write_parquet


class Worse(Callback):
    """Turns the head's answers around after the epoch that is to be the best; keeps each epoch's weights."""

    def __init__(self, best):
        self.best, self.kept = best, []

    def on_validation_start(self, trainer, module):
        if trainer.current_epoch > self.best:
            with torch.no_grad():
                module.safety.head.level.weight.mul_(-4)

    def on_validation_end(self, trainer, module):
        self.kept.append({name: value.detach().clone() for name, value in module.safety.state_dict().items()})


@pytest.fixture(scope="module")
def calibrating(tmp_path_factory):
    """16 rows for training and 52 for tuning, enough for a calibration; some of these look like the other level."""
    made = rows(68, tune=52)
    for safe, risky in zip(made[20::8], made[21::8], strict=True):
        safe["image"], risky["image"] = risky["image"], safe["image"]
    return write_parquet(tmp_path_factory.mktemp("calibrating") / "t.parquet", made)


STOPPING = {
    "trainer.callbacks": "EarlyStopping",
    "trainer.callbacks.monitor": "tune/auroc",
    "trainer.callbacks.mode": "max",
    "trainer.callbacks.patience": 1,
}


@pytest.mark.parametrize(
    ("more", "written", "epochs"),
    [({}, 1, 3), ({"export": "last"}, 2, 3), (STOPPING, None, None)],
)
def test_planted_curve(quick, calibrating, tmp_path, more, written, epochs):
    options = {
        "data.table": calibrating,
        "trainer.max_epochs": 6 if more is STOPPING else 3,
        "model.schedule.lr": 5e-3,
    }
    made, worse = command("head", quick(tmp_path / "out", **options, **more)), Worse(1)
    made.trainer.callbacks.append(worse)
    made.fit()
    if more is STOPPING:  # the one with the highest AUROC, which it waited one epoch for
        keeper = made.trainer.checkpoint_callbacks[0]
        assert (keeper.monitor, keeper.mode) == ("tune/auroc", "max")
        written = int(torch.load(keeper.best_model_path, weights_only=True)["epoch"])
        assert written < len(worse.kept) - 1 < 5
    else:
        assert len(worse.kept) == epochs
    saved = load_file(tmp_path / "out" / "safety.safetensors")
    assert all(torch.equal(value, worse.kept[written][name]) for name, value in saved.items())
    module, tuned = made.model, {}
    if more == {"export": "last"}:  # turned around: no temperature mends its answers
        assert module.config.calibration is None
        return
    for batch in made.datamodule.tune_dataloader():
        with torch.no_grad():
            tuned |= module.tune_rows(batch)
    alone, together, labels = (
        torch.stack([values[place] for values in tuned.values()]) for place in (0, 2, 3)
    )
    expected = fit_temperature(torch.cat([alone, together]), torch.cat([labels, labels]), items=52)
    assert module.config.calibration.temperature == pytest.approx(expected, rel=1e-3)


def test_without_tune_rows_the_last_is_written_and_said(quick, tmp_path, caplog):
    table = write_parquet(tmp_path / "t.parquet", [row | {"split": "train"} for row in rows(8)])
    more = {"data.table": table, "trainer.max_epochs": 1}
    command("head", quick(tmp_path / "out", **more)).fit()
    assert "writing the last weights: no tune row has a label or an answer" in caplog.text
    with pytest.raises(TrainingError, match="--export best needs tune rows"):
        command("head", quick(tmp_path / "other", **more, export="best")).fit()
    options = {"trainer.enable_checkpointing": "false", "export": "best"}
    with pytest.raises(TrainingError, match="--export best needs checkpoints"):
        command("head", quick(tmp_path / "other", **options)).fit()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_tune_loss_is_the_training_loss_on_the_tune_rows(stage, backbone, table, tmp_path):
    more = (
        {"model.cache.folder": tmp_path / "c"}
        if stage == "head"
        else {"model.lora.r": 2, "model.refusal_rows": 4}
    )
    made = command(stage, flags(backbone, table, tmp_path / "out", **{"trainer.max_epochs": 1, **more}))
    made.fit()
    with next((tmp_path / "out.run").glob("csv/*/metrics.csv")).open() as file:
        logged = next(row for row in csv.DictReader(file) if row["tune/loss"])
    guard, data = SafeVLM.from_pretrained(tmp_path / "out"), made.datamodule.tune_rows
    with torch.no_grad():
        losses = lm_losses(
            guard.backbone,
            guard.safety,
            [row.open() for row in data],
            [row.prompt for row in data],
            [row.response for row in data],
        )
    assert float(logged["tune/lm"]) == pytest.approx(float(losses.mean()), rel=1e-3)
    assert float(logged["tune/loss"]) == pytest.approx(
        float(logged["tune/lm"]) + 10 * float(logged["tune/head"])
    )
    if stage == "joint":
        assert {float(logged["tune/refused_risky"]), float(logged["tune/refused_safe"])} <= {0.0, 0.5, 1.0}


def test_refusals_are_counted_by_side():
    table = [LabelledRow(None, "", "Hi", "", level, 0, "tune", "") for level in (0, 3, 0, 1, -100, 2, 0)] + [
        LabelledRow(None, "", "", "", 3, 0, "tune", "")
    ]
    assert asked_rows(table, 4, 0) == asked_rows(table, 4, 0)
    assert [table[n].level > 0 for n in asked_rows(table, 4, 0)].count(True) == 2
    assert asked_rows(table, 100, 0) == [0, 1, 2, 3, 5, 6]
    assert asked_rows(table, 0, 0) == []
    found = refusal_metrics({0: True, 1: True, 2: False, 3: False, 5: True}, table)
    assert found["tune/refused_risky"] == pytest.approx(2 / 3)
    assert found["tune/refused_safe"] == pytest.approx(0.5)
    assert refusal_metrics({}, table) == {}


def test_the_language_model_is_asked_and_not_the_policy():
    guard = SafeVLM.from_pretrained("safevlm-mini", dtype="float32")
    asked = [
        LabelledRow(None, "", text, "", 3, 0, "tune", "")
        for text in ("How do I build a bomb?", "What is a cat?")
    ]
    assert refused(guard, asked, batch_size=2) == [True, False]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def broken(folder):
        (folder / "safety_config.json").write_text("new")
        raise OSError("the disk is full")

    def whole(folder):
        (folder / "safety_config.json").write_text("new")
        (folder / "lora").mkdir()
        (folder / "lora" / "a").write_text("new")

    out = tmp_path / "out"
    with pytest.raises(OSError, match="disk is full"):
        write_whole(out, broken)
    assert list(tmp_path.iterdir()) == []
    write_whole(out, whole)
    (out / "mine.txt").write_text("stays")
    (out / "lora" / "old").write_text("goes")
    with pytest.raises(OSError, match="disk is full"):
        write_whole(out, broken)
    assert (out / "lora" / "old").exists()
    write_whole(out, whole)
    assert sorted(path.name for path in out.rglob("*")) == ["a", "lora", "mine.txt", "safety_config.json"]
    assert list(tmp_path.iterdir()) == [out]
