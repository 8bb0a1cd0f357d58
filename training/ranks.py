"""The processes of a run that split work: images to check, a cache to verify and to fill."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run; by default the only one.

    Every method that communicates must be called by all of them, in the same order.

    Args:
        rank: number of this process, in [0, world).
        world: how many there are, on all nodes.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, trainer: Any) -> Ranks:
        """The processes of a Lightning trainer, which must be connected already.

        Raises:
            ValueError: a strategy that splits the weights among the processes.
        """
        from lightning.pytorch.strategies import (  # reading a table needs none
            FSDPStrategy,
            ModelParallelStrategy,
        )

        strategy = trainer.strategy
        if isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)) or getattr(
            strategy, "zero_stage_3", False
        ):
            raise ValueError(
                f"{type(strategy).__name__} splits the weights among the processes, and the finished folder is "
                "written from whole ones; use --trainer.strategy ddp, and --model.gradient_checkpointing true "
                "where memory is short"
            )
        return cls(trainer.global_rank, trainer.world_size)

    def gather(self, value: ResultT) -> list[ResultT]:
        """Each process's value, by rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value)
        return found

    def distribute(
        self, items: Sequence[ItemT], work: Callable[[Sequence[ItemT]], list[ResultT]]
    ) -> list[ResultT]:
        """Results of all items, in order; each process works on every `world`-th of them.

        Args:
            work: items -> a result for each, which can be pickled.
        """
        parts = self.gather(work(items[self.rank :: self.world]))
        return [parts[number % self.world][number // self.world] for number in range(len(items))]

    def same_folder(self, folder: Path) -> list[int]:
        """The ranks, ascending, that see the same folder under this path as this process: all, or its own node's.

        Each process leaves a file and looks for the others', so that it makes no difference how nodes are
        numbered and whether a disk is shared.
        """
        if self.world == 1:
            return [self.rank]
        (run, *_) = self.gather(secrets.token_hex(8))
        files = [folder / f".rank-{run}-{rank}" for rank in range(self.world)]
        files[self.rank].touch()
        try:
            self.gather(None)  # every file is there
            seen = [rank for rank, file in enumerate(files) if file.exists()]
            self.gather(None)  # and has been looked for
        finally:
            files[self.rank].unlink(missing_ok=True)
        return seen
