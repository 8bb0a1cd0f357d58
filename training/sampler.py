"""The order of an epoch's rows: seeded, split among the processes, and resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from .hash_random import hash_seed

Order: TypeAlias = "Callable[[int], list[int]]"
"""Epoch -> numbers of its rows, shuffled."""


def shuffled_rows(own: int, clean: int, *, clean_per_epoch: int | None, seed: int, epoch: int) -> list[int]:
    """Numbers of an epoch's rows, shuffled by seed and epoch.

    Args:
        own: rows of the main table, numbered 0 to own - 1.
        clean: rows of the clean table, numbered from `own`.
        clean_per_epoch: clean rows of an epoch, each once before any comes again; None: each once.
    """
    generator = torch.Generator().manual_seed(hash_seed(seed, "order", epoch))
    rows = list(range(own))
    if clean_per_epoch is None:
        rows += range(own, own + clean)
    else:
        mixed_in: list[int] = []
        while len(mixed_in) < clean_per_epoch:
            mixed_in += torch.randperm(clean, generator=generator).tolist()
        rows += [own + number for number in mixed_in[:clean_per_epoch]]
    return [rows[number] for number in torch.randperm(len(rows), generator=generator).tolist()]


class EpochSampler(DistributedSampler[Any]):
    """Each process's part of an epoch's order; a torch DistributedSampler, so that Lightning keeps it.

    Args:
        dataset: whose rows are numbered.
        order: of the rows of all processes.
        rank, world: number of this process, and of all processes.
        seed: of torch's sampler, which this one does not use.
    """

    def __init__(self, dataset: Dataset[Any], order: Order, *, rank: int, world: int, seed: int) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self._order = order
        self._skip = {-1: 0}

    def resume(self, epoch: int, done: int, *, batches: int, batch_size: int) -> None:
        """Leave out the `done` batches of this epoch; a whole epoch done means the next one from its start."""
        self.set_epoch(epoch if done < batches else epoch + 1)
        self._skip = {epoch: done * batch_size} if 0 < done < batches else {}

    def __len__(self) -> int:
        return -(-len(self._order(0)) // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        numbers = self._order(self.epoch)
        missing = -len(numbers) % self.num_replicas
        padding = list(islice(cycle(numbers), missing))  # processes may outnumber the rows
        own = (numbers + padding)[self.rank :: self.num_replicas]
        yield from own[self._skip.pop(self.epoch, 0) :]


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning that an epoch can be resumed; the sampler learns from the trainer's progress where."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: the trainer's progress is all that is needed."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing, since the state is empty."""
