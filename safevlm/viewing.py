"""The safety modules on every view of an image: the risk of an image is that of its riskiest view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from safevlm.backbone import Box, Grid, PromptTable, Views
from safevlm.modules import HeadOutput, SafetyModules
from safevlm.policy import Policy
from safevlm.types import Risk, RiskAssessment, Verdict

T = TypeVar("T")
Heatmap: TypeAlias = bool | Literal["flagged"]


@dataclass(frozen=True)
class ViewOutput:
    """The head's output for the V views of B images; float32.

    Args:
        level_logits, category_logits: (V, levels) and (V, categories).
        attention: per view, (h * w,) in [0, 1].
        grids: per view, (h, w) of its attention.
        views: the views that the modules were run on.
    """

    level_logits: Tensor
    category_logits: Tensor
    attention: tuple[Tensor, ...]
    grids: tuple[Grid, ...]
    views: Views

    @property
    def riskiest(self) -> Tensor:
        """(B,) int64: per image, the view with the highest P(unsafe); a view whose P(unsafe) is NaN counts as the highest."""
        unsafe = (1 - self.level_logits.detach().softmax(-1)[:, 0]).nan_to_num(nan=2.0).cpu()
        owners = torch.tensor(self.views.owners)
        best = [int(torch.where(owners == image, unsafe, -1.0).argmax()) for image in range(len(self.views))]
        return torch.tensor(best, dtype=torch.long, device=self.level_logits.device)

    def by_image(self, values: Sequence[T]) -> list[list[T]]:
        """Values of the views, those of each image together."""
        found: list[list[T]] = [[] for _ in range(len(self.views))]
        for owner, value in zip(self.views.owners, values, strict=True):
            found[owner].append(value)
        return found

    def logits(self) -> tuple[Tensor, Tensor]:
        """(B, levels) and (B, categories) of each image's riskiest view, with gradients."""
        if len(self.views) == len(self.views.owners):
            return self.level_logits, self.category_logits
        chosen = self.riskiest
        return self.level_logits[chosen], self.category_logits[chosen]

    def heatmaps(self, images: Sequence[int] | None = None) -> list[np.ndarray | None]:
        """The head's attention in each image's own frame, (h, w) float32 with a maximum of 1.

        Views are laid over each other, each weighted by its P(unsafe); the map is as fine as the finest view.

        Args:
            images: numbers of the images to make maps of; None: all.

        Returns:
            One map per image; None where the attention or the score is not finite.
        """
        unsafe = (1 - self.level_logits.detach().softmax(-1)[:, 0]).cpu().tolist()
        owners = np.array(self.views.owners)
        return [
            self._heatmap(np.flatnonzero(owners == image), unsafe)
            for image in (range(len(self.views)) if images is None else images)
        ]

    def _heatmap(self, numbers: np.ndarray, unsafe: Sequence[float]) -> np.ndarray | None:
        found: np.ndarray | None = None
        for number in numbers:
            grid, box = self.grids[number], self.views.boxes[number]
            values = self.attention[number].detach().float().cpu().reshape(grid).numpy()
            peak = float(values.max())
            if not (np.isfinite(peak) and peak > 0 and np.isfinite(unsafe[number])):
                return None
            if found is None:
                found = np.zeros(self._canvas(numbers), dtype=np.float32)
            weight = 1.0 if len(numbers) == 1 else unsafe[number]
            _lay_over(found, values / peak * weight, box)
        return None if found is None or found.max() <= 0 else found / found.max()

    def _canvas(self, numbers: np.ndarray) -> Grid:
        """The finest view's patches over the whole image."""
        sizes = [(self.grids[n], self.views.boxes[n]) for n in numbers]
        rows = max(grid[0] / (box[3] - box[1]) for grid, box in sizes)
        columns = max(grid[1] / (box[2] - box[0]) for grid, box in sizes)
        return round(rows), round(columns)


def head_output(
    safety: SafetyModules,
    views: Views,
    *,
    table: PromptTable | None = None,
    prompts: Sequence[str] | None = None,
) -> ViewOutput:
    """The plain modules on every view, with gradients; `RiskScorer.score` runs the folded ones.

    Args:
        safety: the modules.
        views: a tower's features, in any float dtype, on any device.
        table: reads the prompts; None: no prompt is read.
        prompts: one per image, "" for the image alone; None for no prompt at all.
    """
    return view_output(
        safety,
        views.to(safety.projector.last.weight),
        pool_grid=safety.projector.pool_grid,
        table=table,
        prompts=prompts,
    )


def view_output(
    modules: Callable[..., HeadOutput],
    views: Views,
    *,
    pool_grid: Grid | None,
    table: PromptTable | None = None,
    prompts: Sequence[str] | None = None,
) -> ViewOutput:
    """Run the safety modules, plain or folded, on every view.

    Args:
        modules: called with the features and the grid of views that share one, and with their prompts.
        views: in the modules' dtype, on their device.
        pool_grid: the grid that they pool to; None: the view's own.
        table: reads the prompts; None: no prompt is read.
        prompts: one per image, "" for the image alone; None for no prompt at all.
    """
    order: list[int] = []
    outputs: list[HeadOutput] = []
    for group in views.groups:
        read = {}
        if prompts is not None and table is not None:
            read = table.for_head([prompts[views.owners[n]] for n in group.numbers], group.features)
        outputs.append(modules(group.features, group.grid, **read))
        order += group.numbers
    count = len(views.owners)
    attention: list[Tensor] = [torch.empty(0)] * count
    grids: list[Grid] = [(0, 0)] * count
    for group, output in zip(views.groups, outputs, strict=True):
        for number, weights in zip(group.numbers, output.attention, strict=True):
            attention[number], grids[number] = weights, pool_grid or group.grid
    levels = torch.cat([output.level_logits for output in outputs])
    categories = torch.cat([output.category_logits for output in outputs])
    if order != sorted(order):
        back = torch.tensor(order, device=levels.device).argsort()
        levels, categories = levels[back], categories[back]
    return ViewOutput(levels, categories, tuple(attention), tuple(grids), views)


def assess_views(
    output: ViewOutput, risks: Sequence[Risk], *, policy: Policy, heatmap: Heatmap = False
) -> list[RiskAssessment]:
    """One assessment per image, that of its riskiest view; the views' risks are given."""
    found = [policy.over_views(views) for views in output.by_image([policy.assess(risk) for risk in risks])]
    if not heatmap:
        return found
    asked = [
        image
        for image, assessment in enumerate(found)
        if assessment.score is not None and (heatmap is True or assessment.verdict is not Verdict.SAFE)
    ]
    for image, map_ in zip(asked, output.heatmaps(asked), strict=True):
        found[image] = replace(found[image], heatmap=map_)
    return found


def _lay_over(canvas: np.ndarray, values: np.ndarray, box: Box) -> None:
    """Enlarge (h, w) values to their box and keep the larger value at each position; the box may reach beyond."""
    rows, columns = canvas.shape
    y = ((np.arange(rows) + 0.5) / rows - box[1]) / (box[3] - box[1]) * values.shape[0]
    x = ((np.arange(columns) + 0.5) / columns - box[0]) / (box[2] - box[0]) * values.shape[1]
    inside_y, inside_x = (y >= 0) & (y < values.shape[0]), (x >= 0) & (x < values.shape[1])
    if inside_y.any() and inside_x.any():
        where = np.ix_(inside_y, inside_x)
        part = values[np.ix_(y[inside_y].astype(int), x[inside_x].astype(int))]
        canvas[where] = np.maximum(canvas[where], part)
