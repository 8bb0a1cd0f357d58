"""What travels through a scan: batches of one shard's images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from safevlm.data import Item
from safevlm.types import RiskAssessment


@dataclass(frozen=True)
class Entry:
    """One image of a batch; each step of a scan returns it with more of its fields set.

    Args:
        index: its position in the shard.
        item: its ids, text and encoded bytes; the bytes are dropped when it has been scored.
        sha256: of the bytes, 64 hex digits; empty without bytes.
        key: equal keys give equal scores: of the bytes, and of the text where it is scored with them.
        known: whether an earlier entry has the same key, so that the image is neither decoded nor scored.
        size: (width, height) of the upright image in full, in pixels; None where it was not decoded.
        phash: perceptual hash of the upright image as it was decoded, 16 hex digits; empty where it was not decoded.
        image: RGB, what the thumbnail is made of: the decoded image or a scaled one; None once it is made. Writing is
            read in the image in full.
        status: ok, undecided or error; empty until it is known.
        assessment: what the scorer found, or why there is no score; None until the status is known.
        thumbnail: WebP; empty where the image is safe or was not decoded.
    """

    index: int
    item: Item
    sha256: str = ""
    key: bytes = b""
    known: bool = False
    size: tuple[int, int] | None = None
    phash: str = ""
    image: Image.Image | None = None
    status: str = ""
    assessment: RiskAssessment | None = None
    thumbnail: bytes = b""


@dataclass(frozen=True)
class Batch:
    """Some images of one shard, in order.

    Args:
        shard: the shard's number in the plan.
        number: of the batch in its shard, from 0.
        entries: the images; none in a shard's last batch, which only ends it.
        last: whether the shard ends here.
        skipped: in the last batch, how many images the sample left out.
        error: in the last batch, why the shard broke off; empty where it did not.
        unfinished: in the last batch, id of the sample that the shard's end or a limit may have cut.
        passed_over: in the last batch, reason -> how many rows or members of the shard gave no image.
    """

    shard: int
    number: int
    entries: tuple[Entry, ...] = ()
    last: bool = False
    skipped: int = 0
    error: str = ""
    unfinished: str | None = None
    passed_over: Mapping[str, int] = field(default_factory=dict)
