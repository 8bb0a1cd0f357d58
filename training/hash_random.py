"""Random numbers that depend on names alone: the same on every machine, process and run, resumed or not."""

from __future__ import annotations

import hashlib


def hash_uniform(*key: object) -> float:
    """A number in [0, 1) that is a hash of `key`, uniform over different keys.

    Used in place of a generator wherever an example's treatment must depend neither on the batch it
    is in nor on what ran before (gradient accumulation, several processes, resumed runs).
    """
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def hash_seed(*key: object) -> int:
    """A seed in [0, 2**53) for a generator of torch, that is a hash of `key`."""
    return int(hash_uniform(*key) * 2**53)
