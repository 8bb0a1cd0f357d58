"""The LightningCLI behind `safevlm train`: no subcommands, loggers and checkpoints beside the output folder."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.multiprocessing.spawn import ProcessRaisedException

from safevlm.errors import CheckpointError, TrainingError, TrainingInterrupted

from .console import EpochBar, is_terminal, lines_above_bars, without_notices
from .datamodule import SafetyDataModule
from .export import Export, run_folder
from .parser import HELP_TRAINER, StageParser, TrainerParser
from .resume import last_checkpoint, set_aside
from .signals import Interruptible

LOGGER = logging.getLogger(__name__)
TRAINER_DEFAULTS = {
    "max_epochs": 3,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
}


class TrainCommand(LightningCLI):
    """Parses flags and YAML into a stage, its data and a trainer.

    The run's logs, its config and Lightning's checkpoints go to `<output_dir>.run`; `output_dir` gets the
    finished safety modules alone.
    """

    data: type[LightningDataModule] = SafetyDataModule
    defaults: dict[str, Any] = TRAINER_DEFAULTS

    def __init__(self, stage: type[LightningModule], *, args: list[str], prog: str) -> None:
        self._called = prog, args
        asked = any(word in HELP_TRAINER for word in args)
        with without_notices():
            super().__init__(
                stage,
                self.data,
                args=["--help"] if asked else args,
                parser_class=TrainerParser if asked else StageParser,
                run=False,
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},
                trainer_defaults=self.defaults,
                parser_kwargs={
                    "prog": prog,
                    "usage": f"{prog} [--config FILE] [--FLAG VALUE ...]",
                    "description": (stage.__doc__ or "").splitlines()[0],
                    "epilog": f"{prog} --help-trainer shows the flags of Lightning's trainer (--trainer.max_epochs ...).",
                },
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What belongs to neither trainer, model nor data."""
        self.add_resuming(parser)
        parser.add_argument(
            "--export",
            type=Export | None,
            default=None,
            help="weights that are written: of the best epoch (least tune/loss, or what EarlyStopping monitors) or "
            "the last; null: the best where tune rows can choose",
        )

    def add_resuming(self, parser: LightningArgumentParser) -> None:
        """How a run goes on from a checkpoint, and when it writes one."""
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Lightning checkpoint to resume from, or 'last': the newest one in <output_dir>.run/checkpoints",
        )
        parser.add_argument(
            "--save_every",
            type=int | None,
            default=None,
            help="optimizer steps between checkpoints to resume from; null: after each epoch",
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's folder, loggers and checkpoints where the config names none of its own."""
        run = self.checkpoints.parent
        options = self.config_init.trainer
        if options.get("default_root_dir") is None:
            kwargs["default_root_dir"] = str(run)
        if options.get("logger") is None:
            kwargs["logger"] = [CSVLogger(run, "csv"), TensorBoardLogger(run, "tensorboard")]
        callbacks: list[Callback] = []
        if options.get("enable_checkpointing") is not False:
            callbacks += self.keepers(options.get("callbacks"))
        if options.get("logger") is not False:
            callbacks.append(LearningRateMonitor("step"))
        if options.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = False
        if options.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = is_terminal()
        if kwargs.get("enable_progress_bar") and not _has_bar(options.get("callbacks")):
            callbacks.append(EpochBar())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**kwargs)

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return run_folder(self.config.model.output_dir) / "checkpoints"

    def keepers(self, callbacks: Any) -> list[Callback]:
        """What keeps checkpoints, beside the config's own callbacks."""
        return checkpoints(self.checkpoints, self.config.save_every, _stopping(callbacks))

    def prepare(self) -> None:
        """Tell the stage which weights it is to write."""
        self.model.export = self.config.export

    def fit(self) -> None:
        """Train; `ckpt_path` resumes.

        Raises:
            TrainingInterrupted: Ctrl-C or SIGTERM; its message says how to go on.
            TrainingError: options that do not fit each other, or a run that cannot go on.
        """
        path = self._resumed()
        self.prepare()
        with without_notices(), lines_above_bars(), Interruptible(self.trainer) as signals:
            try:
                self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=path)
            except MisconfigurationException as error:
                raise TrainingError(str(error)) from error
            except RuntimeError as error:
                if not str(error).startswith("Early stopping conditioned"):  # a metric that was not measured
                    raise
                raise TrainingError(str(error)) from error
            except ProcessRaisedException as error:  # its text is the other process's traceback
                raise TrainingError(
                    f"a process of the run ended: {str(error).strip().splitlines()[-1]}"
                ) from error
            except (KeyboardInterrupt, SystemExit) as error:
                if isinstance(error, SystemExit) and not self.trainer.interrupted:
                    raise
                raise TrainingInterrupted(self._how_to_go_on(), signals.received) from error

    def _resumed(self) -> str | None:
        """The checkpoint to resume from; those of an earlier run are set aside where this one does not continue it."""
        asked: str | None = self.config.ckpt_path
        if asked == "last":
            found = last_checkpoint(self.checkpoints)
            if found is None:
                raise CheckpointError(
                    f"{self.checkpoints} has no checkpoint to resume from; start the run without --ckpt_path"
                )
            return str(found)
        if asked is not None and not Path(asked).is_file():
            raise CheckpointError(f"{asked}: there is no such checkpoint; name a file, or last")
        inside = asked is not None and Path(asked).resolve().parent == self.checkpoints.resolve()
        if not inside and self.trainer.is_global_zero and (aside := set_aside(self.checkpoints)):
            LOGGER.warning("checkpoints of an earlier run are kept in %s", aside)
        if asked is not None and not inside:
            LOGGER.warning("%s is of another folder; the best epoch is chosen from here on", asked)
        return asked

    def _how_to_go_on(self) -> str:
        found = last_checkpoint(self.checkpoints)
        remedy = (
            "no checkpoint to resume from was saved yet: give the same command again (--save_every 100 saves one every "
            "100 steps)"
            if found is None
            else f"To go on from {found}: {resuming(*self._called)}"
        )
        return (
            f"interrupted in optimizer step {self.trainer.global_step + 1}; no weights were written. {remedy}"
        )


def checkpoints(
    folder: Path, save_every: int | None, stopping: EarlyStopping | None = None
) -> list[Callback]:
    """The epoch with the least tune loss, or the best for `stopping`, and the last state to resume from."""
    monitor, mode = ("tune/loss", "min") if stopping is None else (stopping.monitor, stopping.mode)
    kept: dict[str, Any] = {"enable_version_counter": False}
    best = ModelCheckpoint(
        folder, "best-{epoch}", monitor=monitor, mode=mode, auto_insert_metric_name=False, **kept
    )
    if save_every is None:
        return [best, ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, **kept)]
    return [best, ModelCheckpoint(folder, "last", every_n_train_steps=save_every, **kept)]


def resuming(prog: str, args: Sequence[str]) -> str:
    """The command, for a shell, that goes on with a run which was started with these flags."""
    kept, rest = [], iter(args)
    for word in rest:
        if word == "--ckpt_path":
            next(rest, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    return shlex.join([*prog.split(), *kept, "--ckpt_path", "last"])


def _has_bar(callbacks: Any) -> bool:
    given = callbacks if isinstance(callbacks, list) else [callbacks]
    return any(isinstance(callback, ProgressBar) for callback in given)


def _stopping(callbacks: Any) -> EarlyStopping | None:
    """The EarlyStopping among a config's callbacks that watches a tune metric."""
    given = callbacks if isinstance(callbacks, list) else [callbacks]
    return next((c for c in given if isinstance(c, EarlyStopping) and c.monitor.startswith("tune/")), None)
