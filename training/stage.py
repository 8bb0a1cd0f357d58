"""What every stage of training is to Lightning, the guard's and those of alignment: its optimizer, and checkpoints of what it trains."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from .finish import sums
from .finite import FiniteWatch
from .lean_checkpoint import add_frozen, keep_trained
from .options import Schedule
from .schedule import make_optimizer


class Stage(LightningModule):
    """Base of all stages; the constructor touches neither disk nor network.

    Args:
        output_dir: folder that is written at the end.
        overwrite: whether output_dir may hold such a folder already.
        schedule: learning rate in AdamW, warm-up and decay.
    """

    default_warmup = 0
    """Warm-up steps where the schedule does not say."""

    def __init__(self, *, output_dir: str, overwrite: bool, schedule: Schedule) -> None:
        super().__init__()
        self.output_dir, self.overwrite, self.schedule = Path(output_dir), overwrite, schedule
        self._record: dict[str, Any] = {}
        self._sums_before: list[float] = []

    @abstractmethod
    def steps(self) -> int:
        """Optimizer steps of the whole run."""

    @property
    def trained(self) -> dict[str, Tensor]:
        """Name -> parameter of all that this stage trains."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def begin(self, record: dict[str, Any]) -> None:
        """Note, at the end of `setup`, the weights as they are and what a resumed run must have in common."""
        self._record, self._sums_before = record, sums(self.trained)

    def configure_callbacks(self) -> list[Callback]:
        """Stop where something is not finite, whichever way the trainer was made."""
        return [FiniteWatch()]

    def configure_optimizers(self) -> Any:
        """AdamW over what is trained; warm-up and cosine decay per optimizer step."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return make_optimizer(
            parameters, self.schedule, steps=self.steps(), default_warmup=self.default_warmup
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained; frozen weights come from where they were loaded."""
        keep_trained(checkpoint, self.trained, self._record)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare options, rows, names and sizes with those of this run, then add the frozen weights."""
        add_frozen(checkpoint, self.trained, self._record, self.state_dict())
