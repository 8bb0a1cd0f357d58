"""Stops a run at the first loss, gradient or weight that is not finite (infinite, or not a number)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from safevlm.errors import TrainingError

REMEDY = (
    "lower the learning rate (--model.schedule.lr), clip the gradients (--trainer.gradient_clip_val 1.0), or "
    "train in more precision (--trainer.precision 32-true, --model.dtype float32)"
)
SHOWN = 3
"""Tensors and rows that a message names."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of the tensors is finite; whole numbers always are."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            kinds.setdefault(tensor.dtype, []).append(tensor.detach())
    return all(bool(get_total_norm(kind, float("inf")).isfinite()) for kind in kinds.values())


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Names of the tensors that hold a number which is not finite, for a message; empty where none does."""
    if all_finite(tensors.values()):
        return ""
    names = [name for name, tensor in tensors.items() if not all_finite([tensor])]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} of {len(tensors)} tensors"


def optimizer_tensors(optimizer: Optimizer) -> list[Tensor]:
    """The state that the optimizer keeps: AdamW's moments."""
    return [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]


class FiniteWatch(Callback):
    """Looks at losses and gradients before each optimizer step, at weights and the optimizer's state after it.

    Every process learns of it and stops where one of them finds something. The gradients of fp16 mixed
    precision are left out: its scaler skips steps that overflow, and lowers the scale.
    """

    def __init__(self) -> None:
        self._losses: list[tuple[Tensor, Tensor]] = []
        self._rows = torch.empty(0, dtype=torch.int64)
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the step that a resumed run goes on from."""
        self._losses, self._steps = [], trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the rows of the batch."""
        self._rows = batch["index"]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss until the optimizer steps, so that the device need not be waited for."""
        self._losses.append((loss.detach(), self._rows))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Compare losses and gradients, while the weights are still those of the last good step."""
        losses, self._losses = self._losses, []
        found = ""
        if not all_finite([loss for loss, _ in losses]):
            rows = [row for loss, rows in losses if not all_finite([loss]) for row in rows.tolist()]
            found = f"the loss of training rows {_listed(rows)}"
        elif getattr(trainer.precision_plugin, "scaler", None) is None:
            parameters = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            if names := not_finite(parameters):
                found = f"the gradient of {names}"
        _agree(trainer, found, trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare what the optimizer step made, before a checkpoint is written of it."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        values: dict[str, Tensor] = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
        values |= dict(pl_module.named_buffers())
        found = not_finite(values)
        if not found and not all(all_finite(optimizer_tensors(one)) for one in trainer.optimizers):
            found = "the optimizer's state"
        _agree(trainer, found, self._steps)


def _agree(trainer: Trainer, found: str, step: int) -> None:
    """Raise on every process where one of them found something."""
    if trainer.strategy.reduce_boolean_decision(not found, all=True):
        return
    if trainer.world_size > 1:
        everywhere: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(everywhere, found)
        found = "; ".join(
            f"{text} (process {rank})" for rank, text in enumerate(everywhere) if text is not None and text
        )
    raise TrainingError(
        f"not finite in optimizer step {step}, epoch {trainer.current_epoch}: {found}. The run stopped and wrote "
        f"no weights; {REMEDY}"
    )


def _listed(rows: list[int]) -> str:
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    return f"{', '.join(map(str, rows[:8]))}{more}"
