"""The rows that a page lists, in compact columns, and their thumbnails."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safevlm.errors import DataError
from safevlm.report.document import cut, inline_json
from safevlm.report.duplicates import near_duplicates
from safevlm.report.overview import RANKS, Overview
from safevlm.results.parts import iterate_parts
from safevlm.results.schema import ERROR
from safevlm.taxonomy import Taxonomy

ROWS = 100_000
"""Most rows that are listed."""
ROWS_BYTES = 13_000_000
"""Most that ids, shards and columns take; rows beyond are not listed."""
ID_LENGTH, CAPTION_LENGTH, REASON_LENGTH = 1000, 300, 300  # characters; longer ones are cut
CAPTIONS = 20_000
"""Rows, from the first, that keep caption, reason, and what was read in the image."""
CAPTIONS_BYTES = 3_000_000
ERRORS = 500
"""Errors in the table."""
THUMBNAILS = 2_000
UNDECIDED_THUMBNAILS = 500
"""Of the thumbnails, the most that go to undecided rows; the flagged get the others, by score."""
FIXED_BYTES = 72  # of one row in the columns: (4 score + 3 codes + 12 numbers + 32 sha256) * 4/3, rounded up
NONE = 255  # code of a row without level or category


@dataclass
class Listing:
    """Columns of the listed rows, in the page's order.

    Args:
        ids, captions, reasons, writings: texts, the last one what was read in the image; all but ids of the first
            rows only.
        sources: URIs; those of a scan are several where it was merged.
        shards: number of the source, and name; `shard` counts in them.
        levels, categories: names; `level` and `category` (uint8) count in them, 255 is none.
        score: float32, NaN without one.
        verdict: uint8, 0 unsafe, 1 undecided, 2 safe.
        index, group: int32, number in the shard, position in the listing of the near-duplicates' leader.
        sha256: (n, 32) uint8.
        errors: id, shard, index and reason of the first errors.
    """

    ids: list[str]
    captions: list[str]
    reasons: list[str]
    writings: list[str]
    sources: list[str]
    shards: list[tuple[int, str]]
    levels: list[str]
    categories: list[str]
    score: np.ndarray
    level: np.ndarray
    category: np.ndarray
    verdict: np.ndarray
    shard: np.ndarray
    index: np.ndarray
    group: np.ndarray
    sha256: np.ndarray
    errors: list[dict[str, Any]]

    def columns(self) -> dict[str, str]:
        """The numbers as base64 of their little-endian bytes."""
        names = ("score", "level", "category", "verdict", "shard", "index", "group", "sha256")
        return {name: _base64(getattr(self, name).tobytes()) for name in names}


def read_listing(rows_folder: Path, overview: Overview, taxonomy: Taxonomy) -> Listing:
    """Read the rows that an overview lists, in its order."""
    listed = overview.listed
    found = _empty(len(listed), taxonomy, list(overview.counts["source"]))
    hashes: list[int | None] = [None] * len(listed)
    shards: dict[tuple[int, str], int] = {}
    order = np.argsort(listed)
    wanted = iter(zip(listed[order].tolist(), order.tolist(), strict=True))
    number, position = next(wanted, (-1, -1))
    columns = ("source", "id", "shard", "index", "sha256", "phash", "score", "level", "category", "verdict")
    rows = iterate_parts(rows_folder, (*columns, "status", "reason", "text"), optional=("read_text",))
    for current, row in enumerate(rows):
        if row["status"] == ERROR and len(found.errors) < ERRORS:
            found.errors.append(
                {
                    "id": cut(row["id"], ID_LENGTH),
                    "shard": row["shard"],
                    "index": row["index"],
                    "reason": cut(row["reason"] or "", REASON_LENGTH),
                }
            )
        if current == number:
            _fill(found, position, row, shards)
            hashes[position] = int(row["phash"], 16) if row["phash"] else None
            number, position = next(wanted, (-1, -1))
    found.shards = list(shards)
    found.group = near_duplicates(hashes)
    return _within_bounds(found)


def _empty(n: int, taxonomy: Taxonomy, sources: list[str]) -> Listing:
    return Listing(
        ids=[""] * n,
        captions=[""] * min(n, CAPTIONS),
        reasons=[""] * min(n, CAPTIONS),
        writings=[""] * min(n, CAPTIONS),
        sources=sources,
        shards=[],
        levels=list(taxonomy.levels),
        categories=list(taxonomy.category_names),
        score=np.full(n, np.nan, "<f4"),
        level=np.full(n, NONE, np.uint8),
        category=np.full(n, NONE, np.uint8),
        verdict=np.zeros(n, np.uint8),
        shard=np.zeros(n, "<i4"),
        index=np.zeros(n, "<i4"),
        group=np.zeros(n, "<i4"),
        sha256=np.zeros((n, 32), np.uint8),
        errors=[],
    )


def _fill(found: Listing, position: int, row: dict[str, Any], shards: dict[tuple[int, str], int]) -> None:
    """Put a row into the columns."""
    found.ids[position] = cut(row["id"], ID_LENGTH)
    if position < len(found.captions):
        found.captions[position] = cut(row["text"] or "", CAPTION_LENGTH)
        found.reasons[position] = cut(row["reason"] or "", REASON_LENGTH)
        found.writings[position] = cut(row["read_text"] or "", CAPTION_LENGTH)
    if row["score"] is not None:
        found.score[position] = row["score"]
        found.level[position] = _code(found.levels, row["level"])
        found.category[position] = _code(found.categories, row["category"])
    found.verdict[position] = RANKS[row["verdict"]]
    shard = (found.sources.index(row["source"]), row["shard"])
    found.shard[position] = shards.setdefault(shard, len(shards))
    found.index[position] = row["index"]
    if row["sha256"]:
        found.sha256[position] = np.frombuffer(bytes.fromhex(row["sha256"]), np.uint8)


def _code(names: list[str], name: str | None) -> int:
    if name is None:
        return NONE
    if name not in names:
        raise DataError(f"the rows hold {name!r}, the taxonomy has {names}; give the taxonomy of the scan")
    return names.index(name)


def _within_bounds(found: Listing) -> Listing:
    """Leave out the last rows, and the last captions, where they would take more than their bytes."""
    rows, used, seen = 0, 0, set()
    for text, shard in zip(found.ids, found.shard.tolist(), strict=True):
        name = "" if shard in seen else found.shards[shard]
        used += FIXED_BYTES + len(inline_json([text, name]))
        if used > ROWS_BYTES:
            break
        seen.add(shard)
        rows += 1
    captions, used = 0, 0
    for texts in zip(found.captions[:rows], found.reasons, found.writings, strict=False):
        used += len(inline_json(texts))
        if used > CAPTIONS_BYTES:
            break
        captions += 1
    for name in ("ids", "score", "level", "category", "verdict", "shard", "index", "group", "sha256"):
        setattr(found, name, getattr(found, name)[:rows])
    for name in ("captions", "reasons", "writings"):
        setattr(found, name, getattr(found, name)[:captions])
    kept, found.shard = np.unique(found.shard, return_inverse=True)
    found.shard = found.shard.astype("<i4")
    found.shards = [found.shards[shard] for shard in kept]
    return found


def read_thumbnails(folder: Path, listing: Listing, *, budget: int) -> Iterator[list[Any]]:
    """Thumbnails of the first rows, until they would take more than `budget` bytes.

    Yields:
        [row, WebP as base64, heatmap as base64, its height, its width], the heatmap empty without one.
    """
    positions = _with_thumbnail(listing)
    wanted = {(*listing.shards[listing.shard[p]], int(listing.index[p])): p for p in positions}
    sources = {uri: number for number, uri in enumerate(listing.sources)}
    found: dict[int, tuple[bytes, bytes, int, int]] = {}
    columns = ("source", "shard", "index", "thumbnail", "heatmap", "heatmap_height", "heatmap_width")
    for row in iterate_parts(folder, columns):
        position = wanted.get((sources.get(row["source"], -1), row["shard"], row["index"]))
        if position is None or not row["thumbnail"]:
            continue
        height, width = row["heatmap_height"] or 0, row["heatmap_width"] or 0
        heatmap = row["heatmap"] or b""
        if not heatmap or len(heatmap) != height * width:
            heatmap, height, width = b"", 0, 0
        found[position] = (row["thumbnail"], heatmap, height, width)
    for position in positions:
        if position in found:
            webp, heatmap, height, width = found.pop(position)
            pixels, grid = _base64(webp), _base64(heatmap)
            budget -= len(pixels) + len(grid) + 40
            if budget < 0:
                return
            yield [position, pixels, grid, height, width]


def _with_thumbnail(listing: Listing) -> Sequence[int]:
    """Positions of the rows that may have a thumbnail, the most important first."""
    flagged = np.flatnonzero(listing.verdict == RANKS["unsafe"])
    undecided = np.flatnonzero(listing.verdict == RANKS["undecided"])
    positions: list[int] = np.concatenate([undecided[:UNDECIDED_THUMBNAILS], flagged])[:THUMBNAILS].tolist()
    return positions


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
