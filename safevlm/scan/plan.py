"""What a scan will read: the shards of its source, and which of their images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from safevlm.data import Shard, Source
from safevlm.errors import DataError
from safevlm.scan.boundary import contained
from safevlm.scan.options import ScanOptions

SEED = "safevlm-scan"
"""Of `in_sample`: what is left out depends on this, the shard's name and the sample's id alone."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard with its place in the plan.

    Args:
        number: from 0; its part files are named after it.
        take: how many of its first images are read; None: all.
    """

    number: int
    shard: Shard
    take: int | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that decides a scan's rows.

    Args:
        settings: name -> value of what must not change within a folder, as the ledger keeps them.
        shards: of the source, all of them, in its order; those that a limit leaves out take 0.
    """

    settings: dict[str, str]
    shards: tuple[PlannedShard, ...]


def settings(
    uri: str, model: str, policy: str, options: ScanOptions, *, read_text: str, untrained: bool
) -> dict[str, str]:
    """What a folder's rows depend on besides the shards."""
    return {
        "source": uri,
        "model": model,
        "policy": policy,
        "limit": "none" if options.limit is None else str(options.limit),
        "sample": "all" if options.sample_fraction is None else repr(options.sample_fraction),
        "text": "with the image" if options.with_text else "ignored",
        "read_text": read_text,
        "modules": "untrained" if untrained else "trained",
        "decoding": options.decoding,
        "max_pixels": str(options.max_pixels),
    }


def plan_shards(source: Source, shards: Sequence[Shard], limit: int | None) -> tuple[PlannedShard, ...]:
    """The shards in order; with a limit, how many images of each are taken.

    A shard that does not say how many images it has is read once, undecoded, as far as the limit
    reaches, so that every engine takes the same images.
    """
    if limit is None:
        return tuple(PlannedShard(number, shard) for number, shard in enumerate(shards))
    planned, left = [], limit
    for number, shard in enumerate(shards):
        take = min(left, _count(source, shard, left)) if left else 0
        text_only = left and not take  # read whole, so that its rows are counted
        planned.append(PlannedShard(number, shard, None if text_only else take))
        left -= take
    return tuple(planned)


def _count(source: Source, shard: Shard, most: int) -> int:
    if shard.images is not None:
        return shard.images
    count = 0
    try:
        with contained(shard.name):
            for _ in islice(source.read(shard), most):
                count += 1
    except DataError:
        return count + 1  # so that the scan meets the break, too, and says so
    return count


def file_of(shard: str) -> str:
    """The file that a shard is a part of, by its name: several row groups, or runs of rows, share one."""
    return re.sub(r":\d+(-\d+)?$|(?<=^rows)-\d+$", "", shard)


def in_sample(shard: str, id: str, fraction: float | None) -> bool:
    """Whether a sample is scanned, with all of its images, where only a fraction of the samples is."""
    if fraction is None:
        return True
    named = f"{SEED}\0{shard}\0{id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(named, digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64
