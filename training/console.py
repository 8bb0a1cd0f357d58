"""What a run shows: its own lines, none of Lightning's notices, and a bar below them in a terminal."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm.contrib.logging import logging_redirect_tqdm  # type: ignore[import-untyped]

LIGHTNINGS = ("lightning.pytorch", "lightning.fabric")
"""Loggers of Lightning's notices: devices, seeds, advertisements, the end of a run."""


def is_terminal() -> bool:
    """Whether a bar can move: standard output and error both go to a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def epoch_number(trainer: Trainer) -> str:
    """The epoch from 1, and of how many where that is known: 2/3."""
    last = trainer.max_epochs or -1
    return f"{trainer.current_epoch + 1}/{last}" if last > 0 else str(trainer.current_epoch + 1)


class EpochBar(TQDMProgressBar):
    """Lightning's bar, with the epochs counted as in the log; unlike Rich's it lets lines of the log pass."""

    def on_train_epoch_start(self, trainer: Trainer, *rest: Any) -> None:
        """Start the bar of an epoch."""
        super().on_train_epoch_start(trainer, *rest)
        self.train_progress_bar.set_description(f"epoch {epoch_number(trainer)}")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar, without the number of the log's folder."""
        return {
            name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"
        }


@contextmanager
def only_from(level: int, *names: str) -> Iterator[None]:
    """Within the context these loggers pass on what has at least a level, such as logging.WARNING."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.setLevel(was)


@contextmanager
def without_notices() -> Iterator[None]:
    """Within the context Lightning tells what goes wrong, and nothing else: no notices, no guesses at mistakes."""
    with warnings.catch_warnings(), only_from(logging.WARNING, *LIGHTNINGS):
        # frozen modules in eval mode, fewer batches than a logging interval, few workers: all meant so
        warnings.simplefilter("ignore", PossibleUserWarning)
        for kind in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=kind, module=r"lightning\.")
        for told in (
            "Checkpoint directory",  # a resumed run goes on in it
            "The dirpath has changed",  # which the command tells in its own words
            "Total length of",  # without tune rows, which the run has told of
            "`ModelCheckpoint\\(monitor='tune/",
            "Using ModelCheckpoint with manual optimization",  # what is saved after a step is what goes on from there
        ):
            warnings.filterwarnings("ignore", message=told)
        # the flags are handed on by `safevlm train`, so sys.argv has them too
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        yield


@contextmanager
def lines_above_bars() -> Iterator[None]:
    """Within the context a line of the log moves a progress bar down, where it would be written into it."""
    if not is_terminal():
        yield
        return
    with logging_redirect_tqdm():
        yield
