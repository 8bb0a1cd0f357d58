"""A concept set or a preference file -> seeded, resumable batches, for SFT, DPO and PPO."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from safevlm.data import read_image
from safevlm.labelled import ConceptQuestions

from ..resume import text_digest
from ..sampler import EpochSampler, ResumableLoader, shuffled_rows
from ..schedule import batches_per_epoch
from .concepts import KeyedImage, keyed_images
from .gold import TEMPLATES, opposite
from .preferences import read_preferences
from .samples import Sample, concept_sample
from .split import HoldOut, Split, balanced, digest_text, split_concepts

LOGGER = logging.getLogger(__name__)


class AlignBatch(TypedDict):
    """What a step of alignment gets.

    index: (B,) int64, each row's number.
    images: the RGB images of each row.
    """

    index: Tensor
    images: list[list[Image.Image]]


class AlignData(LightningDataModule):
    """What alignment is trained on: a concept set, or a preference file.

    Args:
        concepts: a concept set, as `safevlm eval concepts` takes it: a folder <category>/<concept>/<images> with the harmless
            concepts in the category safe, a Parquet file or folder of them, or hf:<org>/<name>.
        preferences: a .parquet, .jsonl or .json file with the columns prompt, chosen, rejected, images; instead of concepts,
            for SFT and DPO.
        questions: a YAML file as `safevlm eval concepts` takes it, whose questions on images are asked; None: the library's own.
        hold_out: what is kept from training beside images: concepts, questions, both or none.
        held_out_share: share of the concepts (with questions or none: of each concept's images) and of the questions that is
            kept from training, in [0, 1); 0.2 in the paper.
        batch_size: prompts per step; 32 in the paper.
        workers: processes that decode images; 0 decodes in the training process.
        seed: of the split, the order of rows and all other random choices.
    """

    def __init__(
        self,
        concepts: str | None = None,
        preferences: str | None = None,
        questions: str | None = None,
        hold_out: HoldOut = "both",
        held_out_share: float = 0.2,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (concepts is None) == (preferences is None):
            raise ValueError(
                "give either concepts (--data.concepts FOLDER_OR_TABLE) or preferences (--data.preferences FILE)"
            )
        if not 0 <= held_out_share < 1:
            raise ValueError(f"held_out_share is {held_out_share}, a share in [0, 1) is needed")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self.concepts, self.preferences, self.questions_file = concepts, preferences, questions
        self.hold_out, self.held_out_share = hold_out, held_out_share
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.split: Split | None = None
        self._rows: list[KeyedImage] | list[Sample] = []

    def read(self) -> None:
        """Read and check the data, and split it.

        Raises:
            DataError: bad rows, one side alone, or nothing to hold out.
        """
        if self.preferences is not None:
            self._rows = read_preferences(self.preferences)
        else:
            assert self.concepts is not None
            self.split = split_concepts(
                keyed_images(self.concepts),
                self._questions(),
                hold_out=self.hold_out,
                share=self.held_out_share,
                seed=self.seed,
            )
            self._rows = balanced(self.split.trained, seed=self.seed)
            LOGGER.info(
                "%d images to train on, half of them safe; %d held out",
                len(self._rows),
                len(self.split.held_out),
            )

    def _questions(self) -> tuple[str, ...]:
        own = self.questions_file
        return (ConceptQuestions() if own is None else ConceptQuestions.from_yaml(own)).image

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, number: int, epoch: int) -> Sample:
        """Row `number` in an epoch: of a concept set, with a question and wordings that are drawn anew in each."""
        row = self._rows[number]
        if isinstance(row, Sample):
            return row
        assert self.split is not None
        return concept_sample(row, self.split.questions, key=(self.seed, epoch, number))

    def distinct_samples(self) -> list[Sample]:
        """Every image with every question and the longest answers, or every pair."""
        return [one for row in self._rows for one in ([row] if isinstance(row, Sample) else self._asked(row))]

    def batches(self) -> int:
        """Batches of an epoch, by `limit_train_batches` where there is a trainer."""
        batches = -(-len(self) // self.batch_size)
        return batches if self.trainer is None else batches_per_epoch(self.trainer, batches)

    def record(self) -> dict[str, Any]:
        """What decides which rows each step sees, by the names of the options."""
        if self.split is None:
            content: Any = [
                [str(row.prompt), row.chosen, row.rejected] for row in self._rows if isinstance(row, Sample)
            ]
        else:
            content = digest_text(self.split, [row for row in self._rows if isinstance(row, KeyedImage)])
        return {
            "training rows (data.concepts, data.preferences, data.questions)": f"{len(self)} rows {text_digest(content)}",
            "data.hold_out": self.hold_out,
            "data.held_out_share": self.held_out_share,
            "data.batch_size": self.batch_size,
            "data.seed": self.seed,
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by (seed, epoch); a resumed epoch goes on after the batches that it had done."""
        dataset = _Images([row.images if isinstance(row, Sample) else (row.image,) for row in self._rows])
        order = partial(_order, len(dataset), self.seed)
        sampler = EpochSampler(dataset, order, rank=0, world=1, seed=self.seed)
        if trainer := self.trainer:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            done = progress.current.ready if trainer.fit_loop.restarting else 0
            sampler.resume(trainer.current_epoch, done, batches=self.batches(), batch_size=self.batch_size)
        return ResumableLoader(
            dataset,
            sampler=sampler,
            batch_size=self.batch_size,
            num_workers=self.workers,
            collate_fn=_collate,
            persistent_workers=self.workers > 0,
        )

    def _asked(self, row: KeyedImage) -> list[Sample]:
        assert self.split is not None
        chosen, rejected = (max(TEMPLATES[gold], key=len) for gold in (row.gold, opposite(row.gold)))
        samples = [concept_sample(row, [question], key=()) for question in self.split.questions]
        return [replace(sample, chosen=chosen, rejected=rejected) for sample in samples]


class _Images(Dataset[Any]):
    """The images of rows by number."""

    def __init__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, list[Image.Image]]:
        return number, [read_image(image) for image in self.rows[number]]


def _order(rows: int, seed: int, epoch: int) -> list[int]:
    return shuffled_rows(rows, 0, clean_per_epoch=None, seed=seed, epoch=epoch)


def _collate(items: Sequence[tuple[int, list[Image.Image]]]) -> AlignBatch:
    numbers, images = zip(*items, strict=True)
    return AlignBatch(index=torch.tensor(numbers), images=list(images))
