"""Views: the crops of each image that a tower sees, which are one of the whole image, or tiles and an overview."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Grid: TypeAlias = tuple[int, int]
"""(h, w) of patches."""
Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in an image's own frame, whose edges are 1; beyond it where it was padded."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class ViewGroup:
    """Views of one grid.

    Args:
        features: (n, h * w, dim), any float dtype.
        grid: (h, w).
        numbers: which views of the batch they are.
    """

    features: Tensor
    grid: Grid
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Views:
    """The patch features of a batch of images; every image has at least one view.

    Args:
        groups: the views, those of one grid together.
        owners: per view, the number of its image, ascending.
        boxes: per view, where it lies in its image.
    """

    groups: tuple[ViewGroup, ...]
    owners: tuple[int, ...]
    boxes: tuple[Box, ...]

    def __len__(self) -> int:
        """Number of images."""
        return self.owners[-1] + 1 if self.owners else 0

    def __iter__(self) -> Iterator[tuple[Tensor, Grid]]:
        """(h * w, dim) features and the grid of each view, in order."""
        found: dict[int, tuple[Tensor, Grid]] = {}
        for group in self.groups:
            found.update(
                (n, (part, group.grid)) for n, part in zip(group.numbers, group.features, strict=True)
            )
        return (found[number] for number in range(len(self.owners)))

    def of(self, images: Sequence[int]) -> Views:
        """The views of some images, given in ascending order, which are numbered anew from 0."""
        chosen = {image: number for number, image in enumerate(images)}
        kept = [n for n, owner in enumerate(self.owners) if owner in chosen]
        renumbered = {old: new for new, old in enumerate(kept)}
        groups = []
        for group in self.groups:
            rows = [row for row, n in enumerate(group.numbers) if n in renumbered]
            if rows:
                numbers = tuple(renumbered[group.numbers[row]] for row in rows)
                groups.append(ViewGroup(group.features[rows], group.grid, numbers))
        owners = tuple(chosen[self.owners[n]] for n in kept)
        return Views(tuple(groups), owners, tuple(self.boxes[n] for n in kept))

    def to(self, like: Tensor) -> Views:
        """The same views in another tensor's dtype and on its device."""
        groups = (ViewGroup(g.features.to(like), g.grid, g.numbers) for g in self.groups)
        return Views(tuple(groups), self.owners, self.boxes)

    @classmethod
    def of_one_grid(
        cls, features: Tensor, grid: Grid, owners: Sequence[int], boxes: Sequence[Box] | None = None
    ) -> Views:
        """Views of features (n, h * w, dim) that share a grid."""
        group = ViewGroup(features, grid, tuple(range(len(features))))
        return cls((group,), tuple(owners), tuple(boxes or (WHOLE,) * len(features)))

    @classmethod
    def gather(
        cls, features: Sequence[tuple[Tensor, Grid]], owners: Sequence[int], boxes: Sequence[Box]
    ) -> Views:
        """Views of (h * w, dim) features and grids, in order."""
        grids = dict.fromkeys(grid for _, grid in features)
        groups = []
        for grid in grids:
            numbers = tuple(n for n, (_, own) in enumerate(features) if own == grid)
            groups.append(ViewGroup(torch.stack([features[n][0] for n in numbers]), grid, numbers))
        return cls(tuple(groups), tuple(owners), tuple(boxes))
