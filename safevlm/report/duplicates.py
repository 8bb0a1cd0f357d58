"""Images that look alike, by their perceptual hashes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

DISTANCE = 6
"""Most bits in which two of the 64 may differ and still count as alike."""
BANDS = tuple(range(0, 64, 16))
# Six differing bits fall into four bands of 16, so one band has at most one of them.
PROBES = (0, *(1 << bit for bit in range(16)))
CHAIN = 256
"""Leaders looked at under one key: bounds the time where a hostile data set has one key for everything."""


def near_duplicates(hashes: Sequence[int | None]) -> np.ndarray:
    """Group images around leaders, in the given order.

    An image joins the first leader that differs from it in at most `DISTANCE` bits, and becomes
    a leader where there is none. So every member looks like its leader, and groups do not grow into chains.

    Args:
        hashes: 64-bit perceptual hashes; None leads alone.

    Returns:
        int32 (n,): the position of each image's leader; its own for a leader.
    """
    leaders = np.arange(len(hashes), dtype=np.int32)
    groups: dict[int, int] = {}  # hash -> position of its leader
    index = _Index(hashes)
    for position, value in enumerate(hashes):
        if value is None:
            continue
        if value not in groups:
            found = index.first_within(value)
            groups[value] = position if found is None else found
            if found is None:
                index.add(position, value)
        leaders[position] = groups[value]
    return leaders


class _Index:
    """Leaders by each band of their hash: the newest of a band's value, and from each to the one before."""

    def __init__(self, hashes: Sequence[int | None]) -> None:
        self.hashes = array("Q", (value or 0 for value in hashes))
        self.newest = [array("i", [-1]) * (1 << 16) for _ in BANDS]
        self.before = [array("i", [-1]) * len(hashes) for _ in BANDS]

    def add(self, position: int, value: int) -> None:
        for shift, newest, before in zip(BANDS, self.newest, self.before, strict=True):
            band = value >> shift & 0xFFFF
            before[position], newest[band] = newest[band], position

    def first_within(self, value: int) -> int | None:
        """The earliest leader within the distance."""
        first: int | None = None
        for shift, newest, before in zip(BANDS, self.newest, self.before, strict=True):
            band = value >> shift & 0xFFFF
            for probe in PROBES:
                position, seen = newest[band ^ probe], 0
                while position >= 0 and seen < CHAIN:
                    near = (self.hashes[position] ^ value).bit_count() <= DISTANCE
                    if near and (first is None or position < first):
                        first = position
                    position, seen = before[position], seen + 1
        return first
