"""What a run measured, epoch by epoch: a line in the log for each, and the numbers that its plots are drawn from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from .console import epoch_number
from .export import best_keeper

LOGGER = logging.getLogger(__name__)

TRAIN = ("loss", "lm", "level", "category")
"""Terms of the training loss, in the order of `add`'s values."""
TUNE = {
    "tune/auroc": "AUROC",
    "tune/auroc_prompt": "AUROC with text",
    "tune/level_accuracy": "level accuracy",
    "tune/category_accuracy": "category accuracy",
    "tune/refused_risky": "refused of the risky",
    "tune/refused_safe": "refused of the safe",
    "tune/temperature": "temperature",
    "tune/threshold": "threshold",
}
"""Tune metrics -> what a line calls them; the losses stand before them."""
POINTS = 50
"""Points of an epoch in the curve of the training loss, at most."""
LINE_EVERY = 60.0
"""Seconds between lines within an epoch, where there is no progress bar."""


class History(Callback):
    """Collects losses and tune metrics, and logs a line after each epoch; checkpoints keep it for a resumed run.

    Attributes:
        losses: (optimizer step, mean training loss of the batches up to it), in order.
        tuned: the tune metrics of each validation by name, with its `step` and `epoch`.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[float, float]] = []
        self.tuned: list[dict[str, float]] = []
        self._batches: list[Tensor] = []
        self._told = 0.0
        self._begun: tuple[float, int] = (0.0, 0)

    def add(self, step: int, rows: int, values: Tensor) -> None:
        """Note a batch.

        Args:
            step: the optimizer step that it belongs to, from 1.
            rows: of the batch.
            values: (4,) the loss and its terms as `TRAIN` names them; they stay on their device until the epoch ends.
        """
        weights = values.new_tensor([rows, step * rows])
        self._batches.append(torch.cat([values.detach() * rows, weights]))

    def add_tuned(self, step: int, epoch: int, metrics: Mapping[str, Tensor]) -> None:
        """Note tune metrics; those of one step are kept together."""
        if not self.tuned or self.tuned[-1]["step"] != step:
            self.tuned.append({"step": step, "epoch": epoch})
        self.tuned[-1].update({name: float(value) for name, value in metrics.items()})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; a run may go on in the middle of an epoch, whose start it then does not see."""
        self._told = time.monotonic()
        self._begun = self._told, len(self._batches)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the lines within the epoch."""
        self.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A line about the epoch so far, where nothing else tells that the run goes on."""
        now = time.monotonic()
        silent = trainer.progress_bar_callback is None and trainer.is_global_zero
        if not silent or now - self._told < LINE_EVERY:
            return
        self._told = now
        batches, (began, done) = int(trainer.num_training_batches), self._begun
        left = (now - began) / max(1, batch_idx + 1 - done) * (batches - batch_idx - 1)
        sums = self._stacked().sum(0)
        LOGGER.info(
            "epoch %s: %d of %d batches, loss %.4g, %s left in it",
            epoch_number(trainer), batch_idx + 1, batches, float(sums[0] / sums[4]), timedelta(seconds=round(left)),
        )  # fmt: skip

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Means over all processes, and the line."""
        if not self._batches:
            return
        parts = self._stacked().tensor_split(min(POINTS, len(self._batches)))
        sums = torch.stack([part.sum(0) for part in parts])
        sums = trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        self._batches = []
        self.losses += [(float(row[5] / row[4]), float(row[0] / row[4])) for row in sums]
        if trainer.is_global_zero:
            means = (sums[:, :4].sum(0) / sums[:, 4].sum()).tolist()
            LOGGER.info(
                "epoch %s: %s",
                epoch_number(trainer),
                self._line(trainer, dict(zip(TRAIN, means, strict=True))),
            )

    def _stacked(self) -> Tensor:
        """The batches as one tensor; those of a checkpoint are moved to the others' device."""
        device = self._batches[-1].device
        return torch.stack([batch.to(device) for batch in self._batches])

    def _line(self, trainer: Trainer, train: Mapping[str, float]) -> str:
        terms = ", ".join(f"{name} {train[name]:.4g}" for name in TRAIN[1:] if train[name] or name != "lm")
        line = f"loss {train['loss']:.4g} ({terms})"
        tuned = self.tuned[-1] if self.tuned and self.tuned[-1]["epoch"] == trainer.current_epoch else {}
        found = {name: f"tune/{name}" for name in ("lm", "head") if f"tune/{name}" in tuned}
        if "tune/loss" in tuned:
            terms = ", ".join(f"{name} {tuned[key]:.4g}" for name, key in found.items())
            line += f"; tune loss {tuned['tune/loss']:.4g} ({terms})"
        line += "".join(f", {text} {tuned[name]:.3g}" for name, text in TUNE.items() if name in tuned)
        return line + (", the best so far" if tuned and self._is_best(trainer) else "")

    def _is_best(self, trainer: Trainer) -> bool:
        """Whether the last validation is better than all before it, by the metric that the weights are chosen by."""
        keeper = best_keeper(trainer)
        values = [
            tuned[keeper.monitor] for tuned in self.tuned if keeper is not None and keeper.monitor in tuned
        ]
        if keeper is None or not values:
            return False
        return all(
            values[-1] > value if keeper.mode == "max" else values[-1] < value for value in values[:-1]
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        batches = [batch.tolist() for batch in self._batches]
        return {"losses": list(self.losses), "tuned": [dict(one) for one in self.tuned], "batches": batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.losses = [(step, loss) for step, loss in state_dict["losses"]]
        self.tuned = [dict(one) for one in state_dict["tuned"]]
        self._batches = [torch.tensor(batch) for batch in state_dict["batches"]]
