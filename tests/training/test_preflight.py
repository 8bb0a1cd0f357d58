"""A run that would train nothing, or not what it was told, is refused by the name of the option."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from safevlm.training.cli import command
from safevlm.training.options import Loss, Schedule
from safevlm.training.preflight import check_monitors
from safevlm.training.tuning import METRICS

from safevlm.errors import SafeVLMError, TrainingError
from tests.training.builders import flags


@pytest.mark.parametrize("stage", ["head", "joint"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"trainer.precision": "16-true"},
            r"trainer\.precision 16-true .* use 32-true, bf16-mixed or 16-mixed",
        ),
        ({"trainer.precision": "bf16-true"}, r"trainer\.precision bf16-true"),
        ({"trainer.precision": "64-true"}, r"trainer\.precision 64-true"),
        ({"trainer.max_epochs": 0}, r"trainer\.max_epochs is 0"),
        ({"trainer.max_steps": 0}, r"trainer\.max_steps is 0"),
        ({"trainer.limit_train_batches": 0}, r"limit_train_batches is 0"),
        ({"trainer.limit_train_batches": 0.0}, r"limit_train_batches is 0"),
        ({"trainer.max_epochs": -1}, "set no end"),
    ],
)
def test_before_any_data_is_read(stage, options, told, tmp_path):
    made = command(stage, flags(tmp_path / "none", tmp_path / "none", tmp_path / "out", **options))
    with pytest.raises(TrainingError, match=told):
        made.fit()
    assert not (tmp_path / "out").exists()


def trainer(*callbacks):
    return Trainer(callbacks=list(callbacks), accelerator="cpu", logger=False, enable_model_summary=False)


@pytest.mark.parametrize("kind", [EarlyStopping, ModelCheckpoint])
def test_a_watched_metric_is_one_that_is_measured_and_its_better_end(kind):
    for monitor, mode in METRICS.items():
        check_monitors(trainer(kind(monitor=monitor, mode=mode)), tuned=True)
    with pytest.raises(TrainingError, match=r"tune/auroc with mode min.*; give mode max"):
        check_monitors(trainer(kind(monitor="tune/auroc")), tuned=True)
    with pytest.raises(TrainingError, match="'tune/f1', which is not measured; known are tune/loss"):
        check_monitors(trainer(kind(monitor="tune/f1")), tuned=True)
    check_monitors(trainer(kind(monitor="train/loss")), tuned=False)


def test_early_stopping_needs_tune_rows():
    with pytest.raises(TrainingError, match="no tune row has a label or an answer"):
        check_monitors(trainer(EarlyStopping(monitor="tune/loss")), tuned=False)
    check_monitors(trainer(ModelCheckpoint(monitor="tune/loss")), tuned=False)  # it keeps nothing


class Freeze(Callback):
    def setup(self, trainer, module, stage):
        build = module.build

        def frozen():
            build()
            module.requires_grad_(False)

        module.build = frozen


class Undo(Callback):
    """An optimizer that never steps, as a scaler does that skips every step."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        for parameter in module.parameters():
            parameter.grad = None


@pytest.mark.parametrize(
    ("options", "callback", "told"),
    [
        (
            {"trainer.accumulate_grad_batches": 5},
            None,
            "accumulate_grad_batches is 5, but an epoch has 4 batches",
        ),
        (
            {"trainer.accumulate_grad_batches": 3, "trainer.limit_train_batches": 2},
            None,
            "an epoch has 2 batches",
        ),
        ({}, Freeze(), "everything is frozen"),
        ({"trainer.max_epochs": 1}, Undo(), "no weight changed in 4 optimizer steps"),
        ({"trainer.max_epochs": 1, "trainer.limit_train_batches": 0.1}, None, "limit_train_batches"),
    ],
)
def test_with_the_data_at_hand(quick, tmp_path, options, callback, told):
    made = command("head", quick(tmp_path / "out", **options))
    made.trainer.callbacks += [callback] if callback else []
    with pytest.raises(SafeVLMError, match=told):
        made.fit()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf")])
def test_learning_rates_that_train_nothing(lr, capsys):
    with pytest.raises(ValueError, match="a learning rate above 0"):
        Schedule(lr=lr)
    with pytest.raises((SystemExit, ValueError)):
        command("head", ["--model.backbone=x", "--data.table=t", f"--model.schedule.lr={lr}"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Schedule(warmup_steps=-1),
        lambda: Schedule(weight_decay=float("nan")),
        lambda: Schedule(betas=(0.9, 1.0)),
        lambda: Loss(weight=float("nan")),
        lambda: Loss(prompt_probability=1.5),
        lambda: command(
            "head",
            ["--model.backbone=x", "--data.table=t", "--model.loss.weight=0", "--model.train_tokens=false"],
        ),
    ],
)
def test_options_out_of_range(wrong, capsys):
    with pytest.raises((ValueError, SystemExit)):
        wrong()


def test_trial_run_writes_no_folder(quick, tmp_path, caplog):
    command("head", quick(tmp_path / "out", **{"trainer.fast_dev_run": "true"})).fit()
    assert not (tmp_path / "out").exists()
    assert "fast_dev_run" in caplog.text
