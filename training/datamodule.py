"""One DataModule for both stages: checked rows -> seeded, resumable batches."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from safevlm.errors import DataError
from safevlm.labelled.table import LabelledRow, Needs, read_table
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED

from .draw import draw
from .ranks import Ranks
from .resume import rows_digest

LOGGER = logging.getLogger(__name__)


class Batch(TypedDict):
    """What the recipes get.

    images: RGB pictures; None for rows without one, and everywhere where the recipe reads cached features.
    prompts, responses, keys: one text per row; `keys` are the images' hashes, empty without an image.
    levels, categories: (B,) int64, -100 where unlabelled.
    index: (B,) int64, each row's number in its split.
    """

    images: list[Image.Image | None]
    prompts: list[str]
    responses: list[str]
    keys: list[str]
    levels: Tensor
    categories: Tensor
    index: Tensor


class SafetyDataModule(LightningDataModule):
    """Training data of both stages.

    Args:
        table: a .parquet, .jsonl or .json file, a folder of Parquet files, or folders of classes
            (training/README.md describes the columns).
        clean: a second table of harmless rows, mixed in for training; unlabelled rows count as safe and clean.
        clean_fraction: share of an epoch's rows that are from `clean`, in (0, 1); None takes each
            clean row once, as the paper does.
        batch_size: rows per step and process; the paper's 128 are batch_size x processes x accumulate_grad_batches.
        workers: processes that decode images; 0 decodes in the training process.
        tune_fraction: share of the images held out for tuning where the table has no tune split.
        seed: of the shuffling and of every other draw.
        skip_bad: log and drop bad rows instead of stopping.
    """

    def __init__(
        self,
        table: str,
        clean: str | None = None,
        clean_fraction: float | None = None,
        batch_size: int = 16,
        workers: int = 0,
        tune_fraction: float = 0.05,
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        super().__init__()
        if clean_fraction is not None and (clean is None or not 0 < clean_fraction < 1):
            raise ValueError(
                f"clean_fraction {clean_fraction} needs a `clean` table and a value between 0 and 1"
            )
        if not 0 <= tune_fraction < 1:
            raise ValueError(f"tune_fraction is {tune_fraction}, a share in [0, 1) is needed")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self.table, self.clean, self.clean_fraction = table, clean, clean_fraction
        self.batch_size, self.workers = batch_size, workers
        self.tune_fraction, self.seed, self.skip_bad = tune_fraction, seed, skip_bad
        self.decode = True
        self.ranks = Ranks()
        self.train_rows: list[LabelledRow] = []
        self.tune_rows: list[LabelledRow] = []
        self.clean_rows: list[LabelledRow] = []

    def setup(self, stage: str | None = None) -> None:
        """Read the tables for the recipe that the trainer runs: its taxonomy, and what rows must have."""
        if self.train_rows or self.trainer is None:
            return
        recipe: Any = self.trainer.lightning_module
        recipe.check_options()
        self.ranks = Ranks.of(self.trainer)
        self.read(recipe.taxonomy, recipe.needs)

    def read(self, taxonomy: Taxonomy, needs: Needs) -> None:
        """Check every row and split them; raises DataError with the bad rows."""
        rows = read_table(
            self.table, taxonomy, needs=needs, skip_bad=self.skip_bad, distribute=self.ranks.share
        )
        self.train_rows, self.tune_rows = self._split(rows)
        self._check_labels()
        if self.clean is not None:
            found = read_table(
                self.clean, taxonomy, needs=needs, skip_bad=self.skip_bad, distribute=self.ranks.share
            )
            self.clean_rows = [_as_clean(row, taxonomy) for row in found if row.split in ("", "train")]
            if not self.clean_rows:
                raise DataError(
                    f"{self.clean}: has no training rows; leave `clean` out, or give rows of split train"
                )
        seen = {row.key for row in self.train_rows + self.clean_rows if row.key}
        if shared := sum(row.key in seen for row in self.tune_rows):
            LOGGER.warning("%d tune rows show an image that is also trained on; the metrics flatter", shared)
        for name, rows in (("train", self.train_rows), ("clean", self.clean_rows), ("tune", self.tune_rows)):
            LOGGER.info("%d %s rows%s", len(rows), name, _unlabelled(rows))

    def drop(self, rows: Collection[str]) -> None:
        """Leave out rows by their `where`; raises DataError where nothing is left to train on."""
        for name in ("train_rows", "clean_rows", "tune_rows"):
            setattr(self, name, [row for row in getattr(self, name) if row.where not in rows])
        self._check_labels()
        if self.clean is not None and not self.clean_rows:
            raise DataError(f"{self.clean}: no row is left; leave `clean` out, or give others")

    def _check_labels(self) -> None:
        if not any(row.level != IGNORED for row in self.train_rows):
            raise DataError(
                f"{self.table}: no training row has a risk_level; the head has nothing to learn from"
            )

    def _split(self, rows: Sequence[LabelledRow]) -> tuple[list[LabelledRow], list[LabelledRow]]:
        """By the split column; without any tune row, unassigned images are drawn by their hash."""
        named = any(row.split == "tune" for row in rows)

        def side(row: LabelledRow) -> str:
            if row.split or named:
                return row.split or "train"
            return "tune" if draw(self.seed, "split", row.key or row.prompt) < self.tune_fraction else "train"

        sides = [side(row) for row in rows]
        train = [row for row, where in zip(rows, sides, strict=True) if where == "train"]
        if not train:
            raise DataError(
                f"{self.table}: no row is left for training; check the split column and tune_fraction"
            )
        return train, [row for row, where in zip(rows, sides, strict=True) if where == "tune"]

    @property
    def rows(self) -> list[LabelledRow]:
        """Every row that a recipe may see: train, clean, tune."""
        return self.train_rows + self.clean_rows + self.tune_rows

    def draws(self) -> list[tuple[LabelledRow, float]]:
        """Every training row with the times that an epoch draws it; of clean rows the mean."""
        times = self._clean_drawn / max(1, len(self.clean_rows))
        return [(row, 1.0) for row in self.train_rows] + [(row, times) for row in self.clean_rows]

    def steps(self) -> int:
        """Optimizer steps of the trainer's whole run.

        Counted here and not by `trainer.estimated_stepping_batches`, which makes the training loader
        before a resumed run knows where it stands.
        """
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("steps are counted for a trainer; pass this data module to trainer.fit")
        epochs = -(-self.batches() // trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
        steps = epochs if (trainer.max_epochs or 0) > 0 else trainer.max_steps
        return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps

    def batches(self) -> int:
        """Batches of an epoch in each process."""
        trainer = self.trainer
        share = -(-len(self._order(0)) // (trainer.world_size if trainer else 1))
        batches = -(-share // self.batch_size)
        limit = trainer.limit_train_batches if trainer else None
        if limit is None:
            return batches
        return int(batches * limit) if isinstance(limit, float) else min(batches, limit)

    def record(self) -> dict[str, Any]:
        """What decides which rows each step sees, by the names of the options."""
        named = any(row.split == "tune" for row in self.tune_rows)
        return {
            "training rows (data.table)": rows_digest(self.train_rows),
            "tune rows (data.table)": rows_digest(self.tune_rows),
            "clean rows (data.clean)": rows_digest(self.clean_rows),
            "data.tune_fraction": None if named else self.tune_fraction,
            "data.clean_fraction": self.clean_fraction,
            "data.batch_size": self.batch_size,
            "data.seed": self.seed,
        }

    def sample(self) -> list[Batch]:
        """One batch of training rows."""
        rows = _Rows(self.train_rows, self.decode)
        return [collate([rows[number] for number in range(min(self.batch_size, len(rows)))])]

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); a resumed epoch goes on after the batches that it had done."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        dataset = _Rows(self.train_rows + self.clean_rows, self.decode)
        sampler = _EpochSampler(dataset, self._order, rank=rank, world=world, seed=self.seed)
        loader = _ResumableLoader(dataset, sampler=sampler, **self._loading)
        if trainer:
            done = (
                trainer.fit_loop.epoch_loop.batch_progress.current.ready if trainer.fit_loop.restarting else 0
            )
            sampler.resume(trainer.current_epoch, done, batches=self.batches(), batch_size=self.batch_size)
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The tune rows in order; over several processes, each has its share."""
        if not self.tune_rows:
            return []
        world = self.trainer.world_size if self.trainer else 1
        if world == 1:
            return self.tune_dataloader()
        dataset = _Rows(self.tune_rows, self.decode)
        rank = self.trainer.global_rank if self.trainer else 0
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, world, rank, shuffle=False)
        return DataLoader(dataset, sampler=sampler, **self._loading)

    def tune_dataloader(self) -> DataLoader[Any]:
        """All tune rows in order, on this process."""
        return DataLoader(_Rows(self.tune_rows, self.decode), **self._loading)

    @property
    def _loading(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.workers,
            "collate_fn": collate,
            "persistent_workers": self.workers > 0,
        }

    @property
    def _clean_drawn(self) -> int:
        """Clean rows of an epoch."""
        if self.clean_fraction is None:
            return len(self.clean_rows)
        return max(1, round(len(self.train_rows) * self.clean_fraction / (1 - self.clean_fraction)))

    def _order(self, epoch: int) -> list[int]:
        """Numbers of an epoch's rows, shuffled."""
        generator = torch.Generator().manual_seed(int(draw(self.seed, "order", epoch) * 2**53))
        own, clean = len(self.train_rows), len(self.clean_rows)
        chosen = list(range(own))
        if self.clean_fraction is None:
            chosen += range(own, own + clean)
        else:
            wanted = self._clean_drawn
            drawn: list[int] = []
            while len(drawn) < wanted:  # each clean row once before any comes again
                drawn += torch.randperm(clean, generator=generator).tolist()
            chosen += [own + number for number in drawn[:wanted]]
        return [chosen[number] for number in torch.randperm(len(chosen), generator=generator).tolist()]


def _unlabelled(rows: Sequence[LabelledRow]) -> str:
    """For a log line: how many rows the loss leaves a label out of."""
    missing = {
        "risk_level": sum(row.level == IGNORED for row in rows),
        "risk_category": sum(row.category == IGNORED for row in rows),
        "image": sum(row.image is None for row in rows),
        "response": sum(not row.response.strip() for row in rows),
    }
    told = [f"{count} without {name}" for name, count in missing.items() if count]
    return f" ({', '.join(told)})" if told else ""


def _as_clean(row: LabelledRow, taxonomy: Taxonomy) -> LabelledRow:
    safe, clean = 0, taxonomy.category_names.index(taxonomy.clean)
    if row.level not in (IGNORED, safe) or row.category not in (IGNORED, clean):
        raise DataError(
            f"{row.where}, column risk_level: the clean table has a risky row; move it to the main table"
        )
    return replace(row, level=safe, category=clean)


class _Rows(Dataset[Any]):
    """Rows with their pictures decoded where asked for."""

    def __init__(self, rows: Sequence[LabelledRow], decode: bool) -> None:
        self.rows, self.decode = rows, decode

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, LabelledRow, Image.Image | None]:
        row = self.rows[number]
        return number, row, row.open() if self.decode else None


def collate(items: Sequence[tuple[int, LabelledRow, Image.Image | None]]) -> Batch:
    """Rows -> a batch; nothing is padded or stacked but the labels."""
    numbers, rows, images = zip(*items, strict=True)
    return Batch(
        images=list(images),
        prompts=[row.prompt for row in rows],
        responses=[row.response for row in rows],
        keys=[row.key for row in rows],
        levels=torch.tensor([row.level for row in rows]),
        categories=torch.tensor([row.category for row in rows]),
        index=torch.tensor(numbers),
    )


class _EpochSampler(DistributedSampler[Any]):
    """Each process's share of an epoch's order; a torch DistributedSampler, so that Lightning keeps it."""

    def __init__(self, dataset: Dataset[Any], order: Any, *, rank: int, world: int, seed: int) -> None:
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
        shared = (numbers + padding)[self.rank :: self.num_replicas]
        yield from shared[self._skip.pop(self.epoch, 0) :]


class _ResumableLoader(DataLoader[Any]):
    """Tells Lightning that an epoch can be resumed; where, the sampler finds out from the trainer's progress."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
