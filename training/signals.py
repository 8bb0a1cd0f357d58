"""Ctrl-C and SIGTERM end a run at once, in every process of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Interruptible(Callback):
    """Within the context SIGTERM raises KeyboardInterrupt, as Ctrl-C does.

    The trainer would note a SIGTERM and go on until a batch ends, then end with exit code 0. On a SLURM
    cluster, which asks the trainer to queue the job again, its own handling stays.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.received: int = signal.SIGINT
        self._trainer: Any = trainer
        self._before: dict[int, Any] = {}
        self._handles = (
            threading.current_thread() is threading.main_thread() and not SLURMEnvironment.detect()
        )

    def __enter__(self) -> Interruptible:
        if self._handles:
            self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            signal.signal(signal.SIGTERM, self._raise)
            self._trainer.callbacks.insert(0, self)
        return self

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The trainer has put its own handler in place by now."""
        signal.signal(signal.SIGTERM, self._raise)

    def __exit__(self, kind: Any, *_: Any) -> None:
        if not self._handles:
            return
        self._trainer.callbacks.remove(self)
        for number, handler in self._before.items():  # the trainer ignores Ctrl-C once it has seen one
            signal.signal(number, handler)
        launcher = self._trainer.strategy.launcher
        if kind is not None and launcher is not None:
            launcher.kill(signal.SIGTERM)

    def _raise(self, signum: int, _: FrameType | None) -> None:
        self.received = signum
        raise KeyboardInterrupt
