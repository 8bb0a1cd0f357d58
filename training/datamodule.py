"""Checked rows of the tables -> seeded, resumable batches, for every stage."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler

from safevlm.errors import DataError
from safevlm.labelled import LabelledRow, Needs, read_table
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED

from .batch import Batch, RowDataset, collate
from .hash_random import hash_uniform
from .ranks import Ranks
from .resume import rows_digest
from .sampler import EpochSampler, ResumableLoader, shuffled_rows
from .schedule import batches_per_epoch

LOGGER = logging.getLogger(__name__)


class SafetyDataModule(LightningDataModule):
    """Training data of every stage.

    It knows nothing of the stage that it serves. A stage calls `read` with what it needs of the rows, may `drop`
    rows and set `decode_images`, and reads rows and counts; the trainer takes the loaders.

    Args:
        table: a .parquet, .jsonl or .json file, a folder of Parquet files, or folders of classes
            (training/README.md describes the columns).
        clean: a second table of harmless rows, mixed in for training; unlabelled rows count as safe and clean.
        clean_fraction: fraction of an epoch's rows that are from `clean`, in (0, 1); None takes each
            clean row once, as the paper does.
        batch_size: rows per step and process; the paper's 128 are batch_size x processes x accumulate_grad_batches.
        workers: processes that decode images; 0 decodes in the training process.
        tune_fraction: fraction of the images held out for tuning where the table has no tune split, in [0, 1).
        seed: of the order of rows and of all other random choices.
        skip_bad: log and drop bad rows instead of stopping.

    Attributes:
        train_rows, tune_rows, clean_rows: the checked rows; empty before `read`.
        test_rows: how many rows of the table have the split test; they are checked, and no stage sees them.
        decode_images: whether batches have images; a stage that reads cached features sets it to False.
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
            raise ValueError(f"tune_fraction is {tune_fraction}, a fraction in [0, 1) is needed")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self.table, self.clean, self.clean_fraction = table, clean, clean_fraction
        self.batch_size, self.workers = batch_size, workers
        self.tune_fraction, self.seed, self.skip_bad = tune_fraction, seed, skip_bad
        self.decode_images = True
        self.ranks = Ranks()
        self.train_rows: list[LabelledRow] = []
        self.tune_rows: list[LabelledRow] = []
        self.clean_rows: list[LabelledRow] = []
        self.test_rows = 0

    def read(self, taxonomy: Taxonomy, needs: Needs) -> None:
        """Read and check the tables, and split their rows; the processes of `ranks` split the decoding.

        Args:
            taxonomy: the names that labels may have.
            needs: what every row must have.

        Raises:
            DataError: bad rows (file, row, column and reason of each), or no row or label to train on.
        """
        self.train_rows, self.tune_rows = self._split(self._table(self.table, taxonomy, needs))
        self._check_labels()
        if self.clean is not None:
            found = self._table(self.clean, taxonomy, needs)
            self.clean_rows = [_as_clean(row, taxonomy) for row in found if row.split in ("", "train")]
            if not self.clean_rows:
                raise DataError(
                    f"{self.clean}: has no training rows; leave `clean` out, or give rows of split train"
                )
        seen = {row.key for row in self.train_rows + self.clean_rows if row.key}
        if repeated := sum(row.key in seen for row in self.tune_rows):
            LOGGER.warning(
                "%d tune rows show an image that is also trained on; the metrics flatter", repeated
            )
        for name, rows in (("train", self.train_rows), ("clean", self.clean_rows), ("tune", self.tune_rows)):
            if rows or name != "clean":
                LOGGER.info("%d %s rows%s", len(rows), name, _missing(rows))
        if self.test_rows:
            LOGGER.info("%d test rows, which are not trained on", self.test_rows)

    def drop(self, rows: Collection[str]) -> None:
        """Leave out rows by their `where`.

        Raises:
            DataError: nothing is left to train on.
        """
        for name in ("train_rows", "clean_rows", "tune_rows"):
            setattr(self, name, [row for row in getattr(self, name) if row.where not in rows])
        self._check_labels()
        if self.clean is not None and not self.clean_rows:
            raise DataError(f"{self.clean}: no row is left; leave `clean` out, or give others")

    @property
    def rows(self) -> list[LabelledRow]:
        """Every row that a stage may see: train, clean, tune."""
        return self.train_rows + self.clean_rows + self.tune_rows

    def rows_per_epoch(self) -> list[tuple[LabelledRow, float]]:
        """Every training row, and how many times an epoch has it; for clean rows this is a mean."""
        times = self._clean_per_epoch / max(1, len(self.clean_rows))
        return [(row, 1.0) for row in self.train_rows] + [(row, times) for row in self.clean_rows]

    def epoch_order(self, epoch: int) -> list[int]:
        """Numbers of an epoch's rows over all processes, shuffled; train rows have the first numbers, then clean."""
        return shuffled_rows(
            len(self.train_rows),
            len(self.clean_rows),
            clean_per_epoch=None if self.clean_fraction is None else self._clean_per_epoch,
            seed=self.seed,
            epoch=epoch,
        )

    def batches(self) -> int:
        """Batches of an epoch in each process, by `limit_train_batches` where there is a trainer."""
        rows = -(-len(self.epoch_order(0)) // self.ranks.world)
        batches = -(-rows // self.batch_size)
        return batches if self.trainer is None else batches_per_epoch(self.trainer, batches)

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

    def example_batch(self) -> Batch:
        """The first rows of the training split, as a batch."""
        rows = RowDataset(self.train_rows, decode=self.decode_images)
        return collate([rows[number] for number in range(min(self.batch_size, len(rows)))])

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); a resumed epoch goes on after the batches that it had done."""
        dataset = RowDataset(self.train_rows + self.clean_rows, decode=self.decode_images)
        rank, world = self.ranks.rank, self.ranks.world
        sampler = EpochSampler(dataset, self.epoch_order, rank=rank, world=world, seed=self.seed)
        if trainer := self.trainer:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            done = progress.current.ready if trainer.fit_loop.restarting else 0
            sampler.resume(trainer.current_epoch, done, batches=self.batches(), batch_size=self.batch_size)
        return ResumableLoader(dataset, sampler=sampler, **self._loading)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The tune rows in order; of several processes each has a part."""
        if not self.tune_rows:
            return []
        rank, world = self.ranks.rank, self.ranks.world
        if world == 1:
            return self.tune_dataloader()
        dataset = RowDataset(self.tune_rows, decode=self.decode_images)
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, world, rank, shuffle=False)
        return DataLoader(dataset, sampler=sampler, **self._loading)

    def tune_dataloader(self) -> DataLoader[Any]:
        """All tune rows in order, on this process."""
        return DataLoader(RowDataset(self.tune_rows, decode=self.decode_images), **self._loading)

    def _table(self, path: str, taxonomy: Taxonomy, needs: Needs) -> list[LabelledRow]:
        return read_table(
            path, taxonomy, needs=needs, skip_bad=self.skip_bad, distribute=self.ranks.distribute
        )

    def _split(self, rows: Sequence[LabelledRow]) -> tuple[list[LabelledRow], list[LabelledRow]]:
        """Train and tune rows: by the split column; without any tune row, other images are split by their hash."""
        named = any(row.split == "tune" for row in rows)

        def split_of(row: LabelledRow) -> str:
            if row.split or named:
                return row.split or "train"
            number = hash_uniform(self.seed, "split", row.key or row.prompt)
            return "tune" if number < self.tune_fraction else "train"

        splits = [split_of(row) for row in rows]
        self.test_rows = splits.count("test")
        train = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
        if not train:
            raise DataError(
                f"{self.table}: no row is left for training; check the split column and tune_fraction"
            )
        return train, [row for row, split in zip(rows, splits, strict=True) if split == "tune"]

    def _check_labels(self) -> None:
        if not any(row.level != IGNORED for row in self.train_rows):
            raise DataError(
                f"{self.table}: no training row has a risk_level; the head has nothing to learn from"
            )

    @property
    def _clean_per_epoch(self) -> int:
        if self.clean_fraction is None:
            return len(self.clean_rows)
        return max(1, round(len(self.train_rows) * self.clean_fraction / (1 - self.clean_fraction)))

    @property
    def _loading(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.workers,
            "collate_fn": collate,
            "persistent_workers": self.workers > 0,
        }


def _missing(rows: Sequence[LabelledRow]) -> str:
    """How many rows lack a label, an image or a response, for a log line."""
    missing = {
        "risk_level": sum(row.level == IGNORED for row in rows),
        "risk_category": sum(row.category == IGNORED for row in rows),
        "image": sum(row.image is None for row in rows),
        "response": sum(not row.response.strip() for row in rows),
    }
    parts = [f"{count} without {name}" for name, count in missing.items() if count]
    return f" ({', '.join(parts)})" if parts else ""


def _as_clean(row: LabelledRow, taxonomy: Taxonomy) -> LabelledRow:
    """The row with the labels safe and clean; raises DataError where it has others."""
    safe, clean = 0, taxonomy.category_names.index(taxonomy.clean)
    if row.level not in (IGNORED, safe) or row.category not in (IGNORED, clean):
        raise DataError(
            f"{row.where}, column risk_level: the clean table has a risky row; move it to the main table"
        )
    return replace(row, level=safe, category=clean)
