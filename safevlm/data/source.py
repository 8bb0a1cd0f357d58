"""What a scan reads: a source has shards, and a shard gives encoded images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from safevlm.errors import DataError

TEXT_ONLY = "rows that name no image"
"""Why rows of text are passed over."""


@dataclass(frozen=True)
class Shard:
    """A part of a source: the unit of work, and of resuming a scan.

    Args:
        name: unique within its source and the same in every run (`train-00003.tar`, `data.parquet:2`).
        signature: changes when what the shard holds changes (sizes and times, an etag, a revision).
        images: how many rows it gives; None where only reading tells.
    """

    name: str
    signature: str
    images: int | None = None


@dataclass(frozen=True)
class Item:
    """One encoded image; an image that cannot be read is an item with an error.

    Args:
        id: of the sample that it belongs to, as the source names it.
        number: which of the sample's images, from 0.
        data: the encoded bytes; None where there are none.
        error: why there are none; empty where there are.
        text: the caption or conversation that goes with it; empty without one.
        text_error: why a text that is there could not be read; without it the image is not understood.
    """

    id: str
    number: int = 0
    data: bytes | None = None
    error: str = ""
    text: str = ""
    text_error: str = ""


class ShardError(DataError):
    """A shard cannot be read to its end; items that were read before the error are valid."""


class Source(Protocol):
    """Where images come from. Sources are picklable, hold no open file, and never write.

    Attributes:
        uri: canonical, with its kind before the colon (`wds:/data/{000..010}.tar`).
    """

    uri: str

    def shards(self) -> Sequence[Shard]:
        """All shards in a fixed order. Raises DataError if there is nothing to scan."""
        ...

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The shard's items in a fixed order.

        Args:
            shard: one of `shards()`.
            passed_over: takes the counts of what gives no item: reason -> how many, such as
                `{"rows that name no image": 12}`. Reasons are a few fixed plurals, so that the shards' counts
                add up; they are shown in the terminal, the summary and the report.

        Raises:
            ShardError: if the shard cannot be read to its end.
        """
        ...
