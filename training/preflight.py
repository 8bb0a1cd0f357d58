"""Refuses runs that would train nothing, or that end in weights which are not what was asked for."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from safevlm import checkpoint
from safevlm.errors import CheckpointError, TrainingError

from .export import Export, best_keeper
from .tuning import METRICS

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_trainer(trainer: Trainer) -> None:
    """Look at the trainer's options, before any data is read.

    Raises:
        TrainingError: the option, and the remedy.
    """
    if trainer.precision not in PRECISIONS:
        raise TrainingError(
            f"trainer.precision {trainer.precision} would train the safety modules and the optimizer's state in that "
            "precision, in which small steps are lost or overflow; use 32-true, bf16-mixed or 16-mixed, and "
            "--model.dtype bfloat16 or float16 for a frozen backbone of half the size"
        )
    if trainer.max_epochs == 0 or trainer.max_steps == 0:
        name = "max_epochs" if trainer.max_epochs == 0 else "max_steps"
        raise TrainingError(f"trainer.{name} is 0: nothing would be trained; give at least 1")
    if trainer.limit_train_batches == 0:
        raise TrainingError(
            "trainer.limit_train_batches is 0: nothing would be trained; leave it out, or give at least 1"
        )
    if (trainer.max_epochs or -1) < 0 and trainer.max_steps < 0:
        raise TrainingError(
            "trainer.max_epochs and trainer.max_steps set no end, which the learning rate's decay needs; give one "
            "of them"
        )


def check_output(trainer: Trainer, folder: Path, *, overwrite: bool, export: Export | None) -> None:
    """Check that the output folder can be written as asked for, before any data is read.

    Raises:
        TrainingError: the best epoch is to be written, and no checkpoint of it is kept.
        CheckpointError: the folder is a file, or holds a checkpoint and may not be overwritten.
    """
    if export == "best" and best_keeper(trainer) is None:
        raise TrainingError(
            "--export best needs checkpoints (trainer.enable_checkpointing); give --export last"
        )
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, not a folder; give another output_dir")
    if (folder / checkpoint.CONFIG).exists() and not overwrite:
        raise CheckpointError(
            f"{folder} already holds a checkpoint; give another output_dir, or overwrite it "
            "(--model.overwrite true)"
        )


def check_export(export: Export | None, *, can_choose: bool) -> None:
    """Raise TrainingError where the best epoch is to be written, and no tune row can choose it."""
    if export == "best" and not can_choose:
        raise TrainingError(
            "--export best needs tune rows with labels or answers; give some (a split column, or "
            "--data.tune_fraction), or --export last"
        )


def check_monitors(trainer: Trainer, *, tuned: bool) -> None:
    """Look at the metrics that end the run or choose its weights, before it is trained.

    Args:
        tuned: whether there are tune rows that can be measured.

    Raises:
        TrainingError: an EarlyStopping that watches what is not measured, or a `mode` that keeps the worst epoch.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, (EarlyStopping, ModelCheckpoint)) or callback.monitor is None:
            continue
        name, monitor = type(callback).__name__, callback.monitor
        better = METRICS.get(monitor)
        if better is None and monitor.startswith("tune/"):
            raise TrainingError(
                f"{name} watches {monitor!r}, which is not measured; known are {', '.join(METRICS)}"
            )
        if better is not None and callback.mode != better:
            raise TrainingError(
                f"{name} watches {monitor} with mode {callback.mode}, which takes the worst epoch for the best; give "
                f"mode {better}"
            )
        if better is not None and not tuned and isinstance(callback, EarlyStopping):
            raise TrainingError(
                f"{name} watches {monitor}, and no tune row has a label or an answer; give some (a split column, or "
                "--data.tune_fraction), or leave the callback out"
            )


def check_batches(trainer: Trainer, batches: int) -> None:
    """Compare the batches of an epoch with those that one optimizer step takes.

    Raises:
        TrainingError: an epoch has none, or too few for a step as large as it was asked for.
    """
    if batches == 0:
        raise TrainingError(
            f"trainer.limit_train_batches {trainer.limit_train_batches} leaves no batch of an epoch; raise it"
        )
    asked = trainer.accumulate_grad_batches
    if asked > batches:
        raise TrainingError(
            f"trainer.accumulate_grad_batches is {asked}, but an epoch has {batches} batches per process; lower it, or "
            "data.batch_size"
        )
