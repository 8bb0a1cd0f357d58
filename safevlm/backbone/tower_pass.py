"""What one run of a vision tower gave, and how a backbone reads it again without running the tower."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from safevlm.errors import BackboneError

from .families import Family
from .views import Views


@dataclass(frozen=True)
class TowerPass:
    """What one run of the tower gave.

    Args:
        views: features of the layer that is read, without class token.
        rows: per image, its rows in the tower's input.
        output: the tower's whole output, hidden states included, for `VisionTower.replay`.
        pixels: what the tower was given, its rows of all images one after another.
    """

    views: Views
    rows: tuple[int, ...]
    output: Any
    pixels: Tensor


class ReplayedForward:
    """Stands in for a tower's forward and gives back the part of an earlier pass that the backbone asks for.

    Args:
        passed: the earlier pass.
        prompts: per prompt, the images of the pass that it has, in the order in which the backbone asks for them.
        family: how many of an image's rows the backbone reads.
    """

    def __init__(self, passed: TowerPass, prompts: Sequence[Sequence[int]], family: Family) -> None:
        self._output = passed.output
        starts = (0, *accumulate(passed.rows))
        self._total = starts[-1]
        self._rows = [
            [
                slice(start, start + family.rows_used(passed.rows[image], images_in_prompt=len(images)))
                for image, start in ((image, starts[image]) for image in images)
            ]
            for images in prompts
        ]
        self._asked = sum(part.stop - part.start for part in self._parts())
        in_order = [image for images in prompts for image in images] == list(range(len(passed.rows)))
        self._whole = in_order and self._asked == self._total

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output for the images' rows, repeated as often as the pixels are.

        Raises:
            BackboneError: other rows than those of the images.
        """
        pixels: Any = args[0] if args else kwargs.get("pixel_values", kwargs.get("hidden_states"))
        repeats, rest = divmod(len(pixels), self._asked)
        if rest or not repeats:
            raise BackboneError(
                f"the backbone asked for {len(pixels)} rows of vision features, its images have {self._asked}; "
                "pass the same images to both"
            )
        output = copy.copy(self._output)  # families write into the output that they get
        for name in list(output.keys()):
            output[name] = self._select(output[name], repeats)
        return output

    def _parts(self) -> Iterator[slice]:
        return (part for images in self._rows for part in images)

    def _select(self, value: Any, repeats: int) -> Any:
        """The rows asked for of a tensor, or of each tensor in a tuple or list; other values as they are."""
        if isinstance(value, (tuple, list)):
            return type(value)(self._select(part, repeats) for part in value)
        if not isinstance(value, Tensor) or (self._whole and repeats == 1):
            return value
        unit = self._total // len(value)  # towers that merge patches give fewer rows than they get
        prompts = [
            [value[part.start // unit : part.stop // unit] for part in images] for images in self._rows
        ]
        # beams: some versions repeat the images with the rows; each beam reads all of its prompt's
        return torch.cat([rows for images in prompts for rows in images * repeats])
