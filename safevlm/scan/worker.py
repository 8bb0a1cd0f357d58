"""Batches -> rows, in three steps that every runner calls: decode on a CPU, score, draw the flagged ones."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from safevlm.data import Item, decode_item, prepared_pixels
from safevlm.errors import DataError, SafeVLMError
from safevlm.results.schema import ERROR, OK, UNDECIDED, ResultRow
from safevlm.scan.boundary import contained
from safevlm.scan.model import Preprocessor, Scorer
from safevlm.scan.reader import Batch, Entry
from safevlm.types import DecodedItem, RiskAssessment, Verdict

logger = logging.getLogger(__name__)

SCORER_ERRORS = (RuntimeError, ValueError, ArithmeticError, MemoryError, OSError, SafeVLMError)
"""What one picture may do to a scorer: out of memory (torch's is a RuntimeError), sizes, a broken model."""

MAX_HELD_PIXELS = 2**26
"""Pixels, decoded or scaled, that one thread holds before it preprocesses them: 2^26 * 3 bytes = 192 MiB."""

THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 192, 70
TEXT_LENGTH = 1000


@dataclass(frozen=True)
class Group:
    """Images that pass the tower together: their positions in the batch, and its inputs; None where they failed."""

    positions: tuple[int, ...]
    inputs: Any


@dataclass(frozen=True)
class Ready:
    """A batch that only the tower has to see: a row for each entry, without a score yet, and the groups."""

    batch: Batch
    rows: tuple[ResultRow, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Flagged:
    """A picture that a person should see: its position in the batch, its bytes, and where the head looked."""

    position: int
    item: Item
    heatmap: np.ndarray | None


@dataclass(frozen=True)
class Scored:
    """A batch with its rows.

    Args:
        batch: without the images' bytes.
        rows: one per entry; those of known entries have no score yet.
        flagged: what thumbnails are made of; empty once they are.
        thumbnails: rows of the thumbnails file.
    """

    batch: Batch
    rows: tuple[ResultRow, ...]
    flagged: tuple[Flagged, ...] = ()
    thumbnails: tuple[ResultRow, ...] = ()


def prepare(batch: Batch, scorer: Preprocessor) -> Ready:
    """Decode and preprocess a batch's images, those of known entries excepted; any thread may call it."""
    rows = tuple(_row(entry) for entry in batch.entries)
    groups: list[Group] = []
    positions: list[int] = []
    images: list[Image.Image] = []
    for position, entry in enumerate(batch.entries):
        image = None if entry.known else _decode(entry, rows[position])
        if image is not None:
            positions.append(position)
            images.append(image)
        if sum(prepared_pixels(*image.size) for image in images) >= MAX_HELD_PIXELS:
            groups.append(_group(positions, images, scorer))
            positions, images = [], []
    if images:
        groups.append(_group(positions, images, scorer))
    return Ready(batch, rows, tuple(groups))


def _row(entry: Entry) -> ResultRow:
    return {
        "id": entry.item.id,
        "index": entry.index,
        "number": entry.item.number,
        "sha256": entry.sha256 or None,
        "text": entry.item.text[:TEXT_LENGTH],
        "width": None,
        "height": None,
        "phash": None,
    }


def _decode(entry: Entry, row: ResultRow) -> Image.Image | None:
    """The picture, its size and hash noted in the row; without one the row is an error."""
    sample = _decoded(entry.item)
    if sample.image is None:
        row.update(_outcome(RiskAssessment(score=None, reason=sample.error), ERROR))
        return None
    row.update(width=sample.image.width, height=sample.image.height, phash=sample.phash)
    return sample.image


def _decoded(item: Item) -> DecodedItem:
    """The item's image, or why there is none, whatever the decoder raises."""
    try:
        with contained(item.id):
            return decode_item(item)
    except DataError as error:
        return DecodedItem(item.id, None, str(error), item.number, item.text, item.text_error)


def _group(positions: Sequence[int], images: Sequence[Image.Image], scorer: Preprocessor) -> Group:
    try:
        return Group(tuple(positions), scorer.preprocess(images))
    except SCORER_ERRORS as error:
        logger.warning("%d images could not be preprocessed together (%s)", len(images), error)
        return Group(tuple(positions), None)


def score(ready: Ready, scorer: Scorer, *, with_text: bool) -> Scored:
    """Run the tower and fill in the rows, whatever the scorer does.

    A scorer that fails on a group is asked again for each picture by itself; one that fails then,
    too, leaves the picture undecided with the reason. Errors that only a mistake in code raises
    (TypeError, AttributeError) are not caught.
    """
    entries, flagged = ready.batch.entries, []
    for group in ready.groups:
        found = _assess(group, entries, scorer, with_text)
        for position, assessment in zip(group.positions, found, strict=True):
            status = UNDECIDED if assessment.score is None else OK
            ready.rows[position].update(_outcome(assessment, status))
            if assessment.verdict is not Verdict.SAFE:
                flagged.append(Flagged(position, entries[position].item, assessment.heatmap))
    slim = tuple(replace(entry, item=replace(entry.item, data=None, text="")) for entry in entries)
    return Scored(replace(ready.batch, entries=slim), ready.rows, tuple(flagged))


def _assess(group: Group, entries: Sequence[Entry], scorer: Scorer, with_text: bool) -> list[RiskAssessment]:
    prompts = [entries[position].item.text for position in group.positions] if with_text else None
    try:
        if group.inputs is None:
            raise ValueError("its images could not be preprocessed")
        found = list(scorer.assess_inputs(group.inputs, prompts, heatmap="flagged"))
        if len(found) != len(group.positions):
            raise ValueError(
                f"the scorer returned {len(found)} assessments for {len(group.positions)} images"
            )
    except SCORER_ERRORS as error:
        logger.warning("%d images failed together (%s); trying one by one", len(group.positions), error)
        found = [_assess_one(entries[position].item, scorer, with_text) for position in group.positions]
    items = [entries[position].item for position in group.positions]
    return [
        _unread(item) if with_text and item.text_error else _checked(assessment)
        for item, assessment in zip(items, found, strict=True)
    ]


def _unread(item: Item) -> RiskAssessment:
    """An image without the text that it has is another one, and may look safer."""
    return RiskAssessment(score=None, reason=f"its text could not be read: {item.text_error}")


def _assess_one(item: Item, scorer: Scorer, with_text: bool) -> RiskAssessment:
    image = _decoded(item).image
    try:
        if image is None:
            raise ValueError("the image cannot be decoded a second time")
        found = scorer.assess_inputs(
            scorer.preprocess([image]), [item.text] if with_text else None, heatmap="flagged"
        )
        if len(found) != 1:
            raise ValueError(f"the scorer returned {len(found)} assessments for 1 image")
    except SCORER_ERRORS as error:
        return RiskAssessment(score=None, reason=f"the scorer failed: {type(error).__name__}: {error}")
    return found[0]


def _checked(found: RiskAssessment) -> RiskAssessment:
    """The assessment, or an undecided one where it is not complete: undecided is never safe."""
    if found.score is None or not math.isfinite(found.score):
        return RiskAssessment(score=None, reason=found.reason or "the scorer gave no score")
    if found.verdict is Verdict.UNDECIDED or found.level is None or found.category is None:
        return RiskAssessment(score=None, reason=found.reason or "the policy gave no verdict")
    if not 0 <= found.score <= 1:
        return RiskAssessment(score=None, reason=f"the score {found.score} is not in [0, 1]")
    return found


def _outcome(found: RiskAssessment, status: str) -> ResultRow:
    return {
        "score": found.score,
        "level": found.level,
        "category": found.category,
        "verdict": found.verdict.value,
        "status": status,
        "reason": found.reason,
        "level_probabilities": dict(found.level_probabilities),
        "category_probabilities": dict(found.category_probabilities),
        "calibrated": found.calibrated,
    }


def make_thumbnails(scored: Scored) -> Scored:
    """Make the thumbnails of what is flagged, from its bytes; any thread may call it."""
    made = (_thumbnail(flagged, scored.rows[flagged.position]) for flagged in scored.flagged)
    return replace(scored, flagged=(), thumbnails=tuple(row for row in made if row is not None))


def _thumbnail(flagged: Flagged, row: ResultRow) -> ResultRow | None:
    image = _decoded(flagged.item).image
    if image is None:
        return None
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=THUMBNAIL_QUALITY, method=2)
    found: ResultRow = {"index": row["index"], "thumbnail": file.getvalue()}
    if flagged.heatmap is None:
        return found | {"heatmap": None, "heatmap_height": None, "heatmap_width": None}
    height, width = flagged.heatmap.shape
    grey = (flagged.heatmap * 255).round().clip(0, 255).astype(np.uint8)
    return found | {"heatmap": grey.tobytes(), "heatmap_height": height, "heatmap_width": width}
