"""A shard of the feature cache: an .npy file of rows, and a JSON index that says which image has which."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from safevlm.backbone import Grid


@dataclass(frozen=True)
class ShardRows:
    """Where an image's rows are in a shard: views of these grids, one after another."""

    shard: str
    start: int
    grids: tuple[Grid, ...]
    crc32: int

    @property
    def count(self) -> int:
        """How many rows the image has."""
        return sum(h * w for h, w in self.grids)


def open_shard(index: Path) -> tuple[np.memmap[Any, Any], dict[str, ShardRows]]:
    """A shard's rows, mapped into memory, and where each key's are.

    Raises:
        OSError, ValueError, KeyError, TypeError: the shard was interrupted or is damaged.
    """
    found = json.loads(index.read_bytes())
    keys, size = list(found["keys"]), found["bytes"]
    grids = [[(int(h), int(w)) for h, w in views] for views in found["grids"]]
    checks = list(found["crc32"])
    data = index.with_suffix(".npy")
    if data.stat().st_size != size:
        raise ValueError(f"{data.name} has {data.stat().st_size} bytes, {size} expected")
    values = np.load(data, mmap_mode="r", allow_pickle=False)
    ends = list(accumulate(sum(h * w for h, w in views) for views in grids))
    if not (len(keys) == len(checks) == len(grids) and ends and ends[-1] == len(values)):
        raise ValueError(f"{len(values)} rows, {len(keys)} keys of {ends[-1:]} rows")
    starts = [0, *ends[:-1]]
    rows_of = {
        key: ShardRows(index.stem, start, tuple(views), check)
        for key, views, check, start in zip(keys, grids, checks, starts, strict=True)
    }
    return values, rows_of
