"""The tables of a ledger, and how values stand in them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from safevlm.scan.plan import PlannedShard

TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE shards (
    number INTEGER PRIMARY KEY, source TEXT NOT NULL, name TEXT NOT NULL, signature TEXT NOT NULL,
    images INTEGER, take INTEGER, status TEXT, reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0, counts TEXT, seconds REAL NOT NULL DEFAULT 0, unfinished TEXT,
    UNIQUE (source, name)
);
CREATE TABLE seen (
    key BLOB PRIMARY KEY, shard INTEGER, width INTEGER, height INTEGER, phash TEXT, score REAL, level TEXT,
    category TEXT, verdict TEXT, status TEXT, reason TEXT, calibrated INTEGER, levels BLOB, categories BLOB,
    read_text TEXT, decided_by TEXT
) WITHOUT ROWID;
"""
PLAIN = (
    "width", "height", "phash", "score", "level", "category", "verdict", "status", "reason", "calibrated",
    "read_text", "decided_by",
)  # fmt: skip
"""Columns of `seen` that stand in it as they do in a row of the scan."""
SEEN = ("key", *PLAIN, "levels", "categories")
SHARD = (
    "source", "name", "signature", "images", "take", "status", "reason", "attempts", "counts", "seconds",
    "unfinished",
)  # fmt: skip
INSERT_SHARD = "INSERT INTO shards (number, source, name, signature, images, take) VALUES (?, ?, ?, ?, ?, ?)"


def shard_rows(shards: Iterable[PlannedShard], source: str) -> Iterator[tuple[Any, ...]]:
    """The values of `INSERT_SHARD`."""
    for planned in shards:
        shard = planned.shard
        yield planned.number, source, shard.name, shard.signature, shard.images, planned.take


def packed(found: Mapping[str, float], names: Sequence[str]) -> bytes:
    """Probabilities as float32, in the names' order; nothing for none."""
    return array("f", [found[name] for name in names]).tobytes() if found else b""


def unpacked(values: bytes, names: Sequence[str]) -> dict[str, float]:
    """The inverse of `packed`."""
    found = array("f")
    found.frombytes(values)
    return dict(zip(names, found, strict=True)) if values else {}
