"""Draws that depend on names alone: the same on every machine, rank and run, resumed or not."""

from __future__ import annotations

import hashlib


def draw(*parts: object) -> float:
    """A number in [0, 1) that looks random and is a function of `parts`.

    Used in place of a generator wherever an example's treatment must depend neither on the batch it
    is in nor on what ran before (gradient accumulation, several processes, resumed runs).
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
