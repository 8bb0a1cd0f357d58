"""A table of labelled images -> each image once, with its label and what a scorer finds in it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from safevlm.errors import DataError
from safevlm.labelled import LabelledRow, Layout, Needs, read_table
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED, RiskAssessment

if TYPE_CHECKING:
    from safevlm.scorer import RiskScorer

logger = logging.getLogger(__name__)

LEVEL, CATEGORY = "risk_level", "risk_category"
Split: TypeAlias = Literal["train", "tune", "test", "all"]


@dataclass(frozen=True)
class LabelledImages:
    """The labelled images of a table that an evaluation is of.

    Args:
        source: the table's path.
        split: which of its rows; all where the table tells no splits.
        rows: one per image (and text, where labels are those of both), each with a level.
        category: the column of `LabelledRow.extra` that recall is listed by.
    """

    source: Path
    split: Split
    rows: tuple[LabelledRow, ...]
    category: str = CATEGORY

    @property
    def text(self) -> str:
        """What the images are, in words."""
        return f"{self.source}, {'all' if self.split == 'all' else self.split} rows"


@dataclass(frozen=True)
class ScoredImage:
    """An image with its label and its assessment.

    Args:
        name: its file within the table's folder, or its place in the table.
        image: encoded bytes, or a file.
        prompt: text that goes with it; assessed together with it only where the label is that of both.
        level: number of the label's level; 0 is safe.
        category: the label's category, by its own name; empty without one.
        found: by the scorer, under its policy.
    """

    name: str
    image: bytes | Path
    prompt: str
    level: int
    category: str
    found: RiskAssessment

    @property
    def risky(self) -> bool:
        """Whether the label is a risky level."""
        return self.level > 0


def read_images(
    path: Path,
    taxonomy: Taxonomy,
    *,
    split: Split | None = None,
    prefer: Split = "test",
    level: str = LEVEL,
    category: str = CATEGORY,
    skip_bad: bool = False,
) -> LabelledImages:
    """Read the labelled images of a table; they are hashed and not decoded.

    Args:
        path: a table of labelled images, in any form that training reads.
        taxonomy: whose levels the labels name; categories may have any names.
        split: whose rows are taken; None: those of `prefer` where the table has some, else all.
        prefer: see `split`.
        level: the column of levels.
        category: the column of categories.
        skip_bad: leave out bad rows, with a warning, instead of raising.

    Rows without an image or a level are left out, and counted in the log. Rows of equal bytes are one image.

    Raises:
        DataError: no such file or column, bad rows, no row of the split with an image and a level, or an image with two
            labels that differ.
    """
    layout = Layout(level, tuple(dict.fromkeys((CATEGORY, category))), first_image=True)
    needs = Needs(image=False, decoded=False)
    rows = read_table(path, taxonomy, needs=needs, layout=layout, skip_bad=skip_bad)
    if category != CATEGORY and not any(category in row.extra for row in rows):
        raise DataError(f"{path}: has no column {category!r} with values; name another")
    labelled = [row for row in rows if row.key and row.level != IGNORED]
    if not labelled:
        raise DataError(f"{path}: no row has an image and a level in column {level!r}; name another column")
    if missing := len(rows) - len(labelled):
        logger.warning("%s: %d rows have no image or no level, and are left out", path, missing)
    splits = Counter(row.split for row in labelled)
    chosen: Split = split or (prefer if splits[prefer] else "all")
    taken = [row for row in labelled if chosen in ("all", row.split)]
    if not taken:
        told = ", ".join(f"{count} {name or 'without a split'}" for name, count in splits.items())
        raise DataError(f"{path}: no row is of the split {chosen!r}; it has {told}. Give --split all")
    return LabelledImages(path, chosen, tuple(_once(taken, taxonomy, category)), category)


def _once(rows: Sequence[LabelledRow], taxonomy: Taxonomy, category: str) -> list[LabelledRow]:
    """The first row of each image, or of each image and text where the label is that of both."""
    found: dict[tuple[str, str], LabelledRow] = {}
    for row in rows:
        other = found.setdefault((row.key, row.paired_text), row)
        first, second = (f"{taxonomy.levels[r.level]}, {r.extra.get(category)}" for r in (other, row))
        if first != second:
            raise DataError(
                f"{row.where} is labelled {second}, the same image in {other.where} {first}; correct one of them"
            )
    return list(found.values())


def score_images(
    images: LabelledImages,
    scorer: RiskScorer,
    *,
    batch_size: int = 32,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[ScoredImage]:
    """Assess every image, alone, or with its prompt or the words in it where the label is that of both.

    Args:
        images: of `read_images`.
        scorer: whose policy gives the verdicts.
        batch_size: images per pass of the tower.
        on_progress: called with a name, how many are done, and of how many.

    Raises:
        CheckpointError: labels are of images with prompts, and the model reads none.
    """
    found: list[ScoredImage] = []
    with_prompts = any(row.pair for row in images.rows)
    for start in range(0, len(images.rows), batch_size):
        rows = images.rows[start : start + batch_size]
        prompts = [row.paired_text for row in rows] if with_prompts else None
        encoded = [image for row in rows if (image := row.image) is not None]  # all have one
        assessed = scorer.assess(encoded, prompts, batch_size=batch_size)
        found += [
            ScoredImage(
                _name(row, images.source),
                image,
                row.prompt,
                row.level,
                row.extra.get(images.category, ""),
                assessment,
            )
            for row, image, assessment in zip(rows, encoded, assessed, strict=True)
        ]
        if on_progress is not None:
            on_progress("scoring", len(found), len(images.rows))
    return found


def _name(row: LabelledRow, source: Path) -> str:
    if not isinstance(row.image, Path):
        return row.where
    folder = (source if source.is_dir() else source.parent).resolve()
    return str(row.image.relative_to(folder)) if row.image.is_relative_to(folder) else str(row.image)
