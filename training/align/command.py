"""The LightningCLI behind `safevlm train sft`, `dpo` and `ppo`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser

from ..command import TRAINER_DEFAULTS, TrainCommand
from .data import AlignData
from .dpo import DpoTraining
from .ppo import PpoTraining
from .sft import SftTraining

STAGES: dict[str, type[SftTraining | DpoTraining | PpoTraining]] = {
    "sft": SftTraining,
    "dpo": DpoTraining,
    "ppo": PpoTraining,
}


class AlignCommand(TrainCommand):
    """Parses flags and YAML into a stage of alignment, its data and a trainer; the last weights are written.

    Args:
        method: sft, dpo or ppo.
        args: flags.
        prog: the command's name, for messages.
    """

    data = AlignData

    def __init__(self, method: str, *, args: list[str], prog: str) -> None:
        changed: dict[str, Any] = {"max_epochs": 4, "log_every_n_steps": 1}  # 4 epochs in the paper
        if method == "ppo":  # clips by itself: --model.ppo.grad_norm
            changed |= {"gradient_clip_val": None}
        self.defaults = {**TRAINER_DEFAULTS, **changed}
        super().__init__(STAGES[method], args=args, prog=prog)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What belongs to neither trainer, model nor data."""
        self.add_resuming(parser)

    def keepers(self, callbacks: Any) -> list[Callback]:
        """The last state alone."""
        kept: dict[str, Any] = {"enable_version_counter": False}
        if self.config.save_every is None:
            return [ModelCheckpoint(self.checkpoints, "last", save_on_train_epoch_end=True, **kept)]
        return [ModelCheckpoint(self.checkpoints, "last", every_n_train_steps=self.config.save_every, **kept)]

    def prepare(self) -> None:
        """Nothing is chosen among the epochs."""
