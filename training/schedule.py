"""Optimizer, learning rate, and how many batches and steps a run has."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Trainer
from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from .options import Schedule

LOGGER = logging.getLogger(__name__)


def batches_per_epoch(trainer: Trainer, batches: int) -> int:
    """Batches of an epoch in each process, by `trainer.limit_train_batches`; `batches` is their number without it."""
    limit = trainer.limit_train_batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def optimizer_steps(trainer: Trainer, batches: int) -> int:
    """Optimizer steps of the trainer's whole run.

    Counted here and not by `trainer.estimated_stepping_batches`, which makes the training loader
    before a resumed run knows where it stands.

    Args:
        trainer: whose `max_epochs` and `max_steps` count.
        batches: of an epoch in each process, from `batches_per_epoch`.
    """
    epochs = -(-batches // trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
    steps = epochs if (trainer.max_epochs or 0) > 0 else trainer.max_steps
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps


def make_optimizer(
    parameters: Iterable[Parameter], schedule: Schedule, *, steps: int, default_warmup: int
) -> dict[str, Any]:
    """AdamW with linear warm-up and cosine decay to 0, as `configure_optimizers` returns it.

    Args:
        parameters: those that are trained.
        schedule: learning rate and the options of AdamW.
        steps: optimizer steps of the run; warm-up takes at most half of them.
        default_warmup: warm-up steps where the schedule does not say.
    """
    asked = default_warmup if schedule.warmup_steps is None else schedule.warmup_steps
    warmup = min(asked, steps // 2)
    if warmup < asked:
        LOGGER.warning("warm-up shortened from %d to %d steps: the run has %d", asked, warmup, steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    optimizer = AdamW(
        list(parameters), lr=schedule.lr, betas=schedule.betas, weight_decay=schedule.weight_decay
    )
    scheduler = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": scheduler}
