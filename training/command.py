"""The LightningCLI behind `safevlm train`: no subcommands, loggers and checkpoints beside the output folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from .datamodule import SafetyDataModule
from .recipe import Recipe

TRAINER_DEFAULTS = {
    "max_epochs": 3,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
}


class TrainCommand(LightningCLI):
    """Parses flags and YAML into a recipe, its data and a trainer.

    The run's logs, its config and Lightning's checkpoints go to `<output_dir>.run`; `output_dir` gets the
    finished safety modules alone.
    """

    def __init__(self, recipe: type[Recipe], *, args: list[str], prog: str) -> None:
        # the flags are handed on by `safevlm train`, so sys.argv has them too
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        super().__init__(
            recipe,
            SafetyDataModule,
            args=args,
            run=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"prog": prog, "description": (recipe.__doc__ or "").splitlines()[0]},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What belongs to neither trainer, model nor data."""
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Lightning checkpoint to resume from, <output_dir>.run/checkpoints/last.ckpt, or 'last'",
        )
        parser.add_argument(
            "--save_every",
            type=int | None,
            default=None,
            help="optimizer steps between checkpoints to resume from; null: after each epoch",
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's folder, loggers and checkpoints where the config names none of its own."""
        run = Path(f"{self.config.model.output_dir}.run")
        options = self.config_init.trainer
        if options.get("default_root_dir") is None:
            kwargs["default_root_dir"] = str(run)
        if options.get("logger") is None:
            kwargs["logger"] = [CSVLogger(run, "csv"), TensorBoardLogger(run, "tensorboard")]
        callbacks: list[Callback] = []
        if options.get("enable_checkpointing") is not False:
            callbacks += checkpoints(run / "checkpoints", self.config.save_every)
        if options.get("logger") is not False:
            callbacks.append(LearningRateMonitor("step"))
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**kwargs)

    def fit(self) -> None:
        """Train; `ckpt_path` resumes."""
        path = self.config.ckpt_path
        if path == "last":
            path = str(Path(f"{self.config.model.output_dir}.run") / "checkpoints" / "last.ckpt")
        self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=path)


def checkpoints(folder: Path, save_every: int | None) -> list[Callback]:
    """The epoch with the least tune loss, and the last state to resume from."""
    best = ModelCheckpoint(
        folder, "best-{epoch}", monitor="tune/loss", mode="min", auto_insert_metric_name=False
    )
    if save_every is None:
        best.save_last = True
        return [best]
    last = ModelCheckpoint(folder, "last", every_n_train_steps=save_every, enable_version_counter=False)
    return [best, last]
