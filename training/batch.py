"""Rows -> batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from safevlm.labelled import LabelledRow


class Batch(TypedDict):
    """What a step of training gets.

    images: RGB images; None for rows without one, and for all rows where the stage reads cached features.
    prompts, responses, keys: one text per row; `keys` are the images' hashes, empty without an image.
    read_texts: words that a reader found in each row's image; may be empty.
    levels, categories: (B,) int64, -100 where unlabelled.
    pairs: whether the labels are of image and prompt or words together, and say nothing of the image alone.
    index: (B,) int64, each row's number in its split.
    """

    images: list[Image.Image | None]
    prompts: list[str]
    responses: list[str]
    keys: list[str]
    read_texts: list[str]
    levels: Tensor
    categories: Tensor
    pairs: list[bool]
    index: Tensor


class RowDataset(Dataset[Any]):
    """Rows by number, with their images.

    Args:
        rows: of one split.
        decode: whether images are decoded; None stands in their place otherwise.
    """

    def __init__(self, rows: Sequence[LabelledRow], *, decode: bool) -> None:
        self.rows, self.decode = rows, decode

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, LabelledRow, Image.Image | None]:
        row = self.rows[number]
        return number, row, row.open() if self.decode else None


def collate(items: Sequence[tuple[int, LabelledRow, Image.Image | None]]) -> Batch:
    """Make a batch of a dataset's items; nothing is padded or stacked but the labels."""
    numbers, rows, images = zip(*items, strict=True)
    return Batch(
        images=list(images),
        prompts=[row.prompt for row in rows],
        responses=[row.response for row in rows],
        keys=[row.key for row in rows],
        read_texts=[row.read_text for row in rows],
        levels=torch.tensor([row.level for row in rows]),
        categories=torch.tensor([row.category for row in rows]),
        pairs=[row.pair for row in rows],
        index=torch.tensor(numbers),
    )
