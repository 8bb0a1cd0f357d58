"""Pictures that look alike, by their perceptual hashes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DISTANCE = 6
"""Most bits in which two of the 64 may differ and still count as alike."""
BANDS = tuple(range(0, 64, 16))
# Six differing bits fall into four bands of 16, so one band has at most one of them.
PROBES = (0, *(1 << bit for bit in range(16)))
BUCKET = 256
"""Leaders looked at under one key: bounds the time where a hostile data set has one key for everything."""


def near_duplicates(hashes: Sequence[int | None]) -> np.ndarray:
    """Group pictures around leaders, in the given order.

    A picture joins the first leader that differs from it in at most `DISTANCE` bits, and leads
    where there is none. So every member looks like its leader, and groups do not grow into chains.

    Args:
        hashes: 64-bit perceptual hashes; None leads alone.

    Returns:
        int32 (n,): the place of each picture's leader; its own for a leader.
    """
    leaders = np.arange(len(hashes), dtype=np.int32)
    groups: dict[int, int] = {}  # hash -> place of its leader
    tables: list[dict[int, list[tuple[int, int]]]] = [{} for _ in BANDS]
    for place, value in enumerate(hashes):
        if value is None:
            continue
        if value not in groups:
            found = _first_within(value, tables)
            groups[value] = place if found is None else found
            if found is None:
                for shift, table in zip(BANDS, tables, strict=True):
                    bucket = table.setdefault(value >> shift & 0xFFFF, [])
                    if len(bucket) < BUCKET:
                        bucket.append((place, value))
        leaders[place] = groups[value]
    return leaders


def _first_within(value: int, tables: Sequence[dict[int, list[tuple[int, int]]]]) -> int | None:
    """The earliest leader within the distance."""
    first: int | None = None
    for shift, table in zip(BANDS, tables, strict=True):
        band = value >> shift & 0xFFFF
        for probe in PROBES:
            for place, leader in table.get(band ^ probe, ()):
                if (first is None or place < first) and (leader ^ value).bit_count() <= DISTANCE:
                    first = place
    return first
