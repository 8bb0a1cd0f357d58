"""The three steps that every engine takes with a batch: decode on a CPU, score, make thumbnails of flagged images."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from safevlm.data import Item, decode_item_reduced, perceptual_hash, prepared_pixels
from safevlm.data.image import MAX_PIXELS
from safevlm.errors import DataError, ImageError, SafeVLMError
from safevlm.results.schema import ERROR, OK, UNDECIDED
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.boundary import contained
from safevlm.scan.rows import TEXT_LENGTH
from safevlm.types import RiskAssessment, Verdict

if TYPE_CHECKING:
    from safevlm.scorer import RiskScorer

logger = logging.getLogger(__name__)

SCORER_ERRORS = (RuntimeError, ValueError, ArithmeticError, MemoryError, OSError, SafeVLMError)
"""What one image may do to a scorer: out of memory (torch's is a RuntimeError), sizes, a broken model."""

MAX_HELD_PIXELS = 2**26
"""Pixels, decoded or scaled, that one thread holds before it preprocesses them: 2^26 * 3 bytes = 192 MiB."""

MAX_KEPT_PIXELS = 2**24
"""Decoded pixels that a batch keeps until it is scored, for thumbnails and writing: 2^24 * 3 bytes = 48 MiB. Images
beyond it are scaled to a thumbnail's size when they are decoded, which costs time for each, and few of them are
flagged; those of them that are read for writing are decoded again."""

REDUCING_GAP = 2
"""Least ratio of a reduced image's side to the side that the tower scales images to, so that this resampling still
averages over pixels: the ratio with which Pillow reduces JPEGs before it makes thumbnails of them."""

THUMBNAIL_SIZE, THUMBNAIL_QUALITY = (192, 192), 70

Preprocess: TypeAlias = Callable[[Sequence[Image.Image]], Any]
"""RGB images -> inputs of the tower; called from several threads."""


@dataclass(frozen=True)
class Prepared:
    """A batch that only the tower has to see.

    Args:
        batch: its images are decoded; those that could not be have the status error.
        inputs: positions in the batch of images that pass the tower together -> the tower's inputs; None
            where they could not be preprocessed.
        max_pixels: the largest width * height that is decoded.
    """

    batch: Batch
    inputs: Mapping[tuple[int, ...], Any]
    max_pixels: int = MAX_PIXELS


def prepare(
    batch: Batch,
    preprocess: Preprocess,
    scaled_side: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Prepared:
    """Decode and preprocess a batch's images, those of known entries excepted; any thread may call it.

    Args:
        scaled_side: pixels on the side that the preprocessing scales any image to, by which large JPEGs are
            decoded at a reduced size; None: all are decoded whole.
        max_pixels: the largest width * height that is decoded.
    """
    entries: list[Entry] = []
    inputs: dict[tuple[int, ...], Any] = {}
    room = MAX_KEPT_PIXELS
    for group in _decoded_groups(batch.entries, scaled_side, max_pixels):
        images = {n: image for n, (_, image) in enumerate(group, len(entries)) if image is not None}
        if images:
            inputs[tuple(images)] = _preprocessed(list(images.values()), preprocess)
        for entry, image in group:
            if image is not None:
                if image.width * image.height > room:
                    image.thumbnail(THUMBNAIL_SIZE)
                room -= image.width * image.height
            entries.append(replace(entry, image=image))
    return Prepared(replace(batch, entries=tuple(entries)), inputs, max_pixels)


def _decoded_groups(
    entries: Sequence[Entry], scaled_side: int | None, max_pixels: int
) -> Iterator[list[tuple[Entry, Image.Image | None]]]:
    """The entries in order, with their images, in groups of about `MAX_HELD_PIXELS`."""
    group: list[tuple[Entry, Image.Image | None]] = []
    held = 0
    for entry in entries:
        group.append((entry, None) if entry.known else _decoded(entry, scaled_side, max_pixels))
        image = group[-1][1]
        held += 0 if image is None else prepared_pixels(*image.size)
        if held >= MAX_HELD_PIXELS:
            yield group
            group, held = [], 0
    if group:
        yield group


def _decoded(entry: Entry, scaled_side: int | None, max_pixels: int) -> tuple[Entry, Image.Image | None]:
    """The entry with its image's size and hash, and the image; without an image the entry has the status error."""
    try:
        with contained(entry.item.id):
            image, size = _decode(entry.item, scaled_side, max_pixels)
            phash = perceptual_hash(image)
    except (DataError, ImageError) as error:
        return replace(entry, status=ERROR, assessment=RiskAssessment(None, reason=str(error))), None
    return replace(entry, size=size, phash=phash), image


def _decode(item: Item, scaled_side: int | None, max_pixels: int) -> tuple[Image.Image, tuple[int, int]]:
    """The image, which may be reduced, and its full size."""
    least_side = None if scaled_side is None else REDUCING_GAP * scaled_side
    return decode_item_reduced(item, least_side=least_side, max_pixels=max_pixels)


def _preprocessed(images: Sequence[Image.Image], preprocess: Preprocess) -> Any:
    try:
        return preprocess(images)
    except SCORER_ERRORS as error:
        logger.warning("%d images could not be preprocessed together (%s)", len(images), error)
        return None


def score(prepared: Prepared, scorer: RiskScorer, *, with_text: bool) -> Batch:
    """Run the tower and assess every image that was decoded, whatever the scorer does.

    A scorer that fails on a group is asked again for each image by itself, which is decoded again for it; one
    that fails then, too, leaves the image undecided with the reason. Errors that only a mistake in code raises
    (TypeError, AttributeError) are not caught.

    Returns:
        The batch without encoded bytes, and with the images of those alone that get a thumbnail.
    """
    batch = prepared.batch
    assessments: dict[int, RiskAssessment] = {}
    for positions, inputs in prepared.inputs.items():
        entries = [batch.entries[position] for position in positions]
        found = _assess(inputs, entries, scorer, with_text, prepared.max_pixels)
        assessments |= zip(positions, found, strict=True)
    scored = (_scored(entry, assessments.get(n)) for n, entry in enumerate(batch.entries))
    return replace(batch, entries=tuple(scored))


def _scored(entry: Entry, found: RiskAssessment | None) -> Entry:
    slim = replace(entry, item=replace(entry.item, data=None, text=entry.item.text[:TEXT_LENGTH]))
    if found is None:  # known, or not decoded
        return slim
    return replace(
        slim,
        status=UNDECIDED if found.score is None else OK,
        assessment=found,
        image=None if found.verdict is Verdict.SAFE else entry.image,
    )


def _assess(
    inputs: Any, entries: Sequence[Entry], scorer: RiskScorer, with_text: bool, max_pixels: int
) -> list[RiskAssessment]:
    """One assessment per image of a group."""
    items = [entry.item for entry in entries]
    prompts = [item.text for item in items] if with_text else None
    try:
        if inputs is None:
            raise ValueError("its images could not be preprocessed")
        found = list(
            scorer.assess_inputs(
                inputs, prompts, images=lambda n: _whole(entries[n], max_pixels), heatmap="flagged"
            )
        )
        if len(found) != len(items):
            raise ValueError(f"the scorer returned {len(found)} assessments for {len(items)} images")
    except SCORER_ERRORS as error:
        logger.warning("%d images failed together (%s); trying one by one", len(items), error)
        found = [_assess_one(item, scorer, with_text, max_pixels) for item in items]
    return [
        _unread(item) if with_text and item.text_error else _checked(assessment)
        for item, assessment in zip(items, found, strict=True)
    ]


def _whole(entry: Entry, max_pixels: int) -> Image.Image:
    """The decoded image at its own size."""
    if entry.image is not None and entry.image.size == entry.size:
        return entry.image
    return _decode_whole(entry.item, max_pixels)


def _decode_whole(item: Item, max_pixels: int) -> Image.Image:
    with contained(item.id):
        return _decode(item, None, max_pixels)[0]


def _unread(item: Item) -> RiskAssessment:
    """An image without the text that it has is another one, and may look safer."""
    return RiskAssessment(score=None, reason=f"its text could not be read: {item.text_error}")


def _assess_one(item: Item, scorer: RiskScorer, with_text: bool, max_pixels: int) -> RiskAssessment:
    try:
        with contained(item.id):
            image, _ = _decode(item, None, max_pixels)
        found = scorer.assess_inputs(
            scorer.preprocess([image]),
            [item.text] if with_text else None,
            images=lambda _: _decode_whole(item, max_pixels),
            heatmap="flagged",
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


def make_thumbnails(batch: Batch) -> Batch:
    """Make the thumbnails of the images that `score` left in the batch; any thread may call it."""
    entries = (
        entry if entry.image is None else replace(entry, image=None, thumbnail=_webp(entry.image))
        for entry in batch.entries
    )
    return replace(batch, entries=tuple(entries))


def _webp(image: Image.Image) -> bytes:
    small, file = image.copy(), io.BytesIO()
    small.thumbnail(THUMBNAIL_SIZE)
    small.save(file, "WEBP", quality=THUMBNAIL_QUALITY, method=2)
    return file.getvalue()
