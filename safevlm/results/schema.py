"""What a scan's folder holds, by name, and the columns of its rows."""

from __future__ import annotations

from typing import Any, TypeAlias

from safevlm.results.parts import Column

ROWS, THUMBNAILS, SUMMARY, REPORT = "rows", "thumbnails", "summary.json", "report.html"

ResultRow: TypeAlias = "dict[str, Any]"
"""A value for each of `COLUMNS`, or for those of them that are known so far."""

OK, UNDECIDED, ERROR = "ok", "undecided", "error"
"""Status of a row: it has a score, the scorer gave none, the image could not be read."""

COLUMNS = (
    Column("source", "string", nullable=False),  # its URI
    Column("id", "string", nullable=False),  # the sample's, as the source names it
    Column("shard", "string", nullable=False),
    Column("index", "int32", nullable=False),  # position in the shard
    Column("number", "int32", nullable=False),  # which of the sample's images
    Column("width", "int32"),  # pixels, of the upright image
    Column("height", "int32"),
    Column("sha256", "string"),  # of the encoded bytes; null where there are none
    Column("phash", "string"),  # 16 hex digits; null where it could not be read
    Column("score", "float32"),  # P(unsafe) in [0, 1]; null unless status is ok
    Column("level", "string"),
    Column("category", "string"),
    Column("verdict", "string", nullable=False),  # safe, unsafe, undecided
    Column("status", "string", nullable=False),  # ok, undecided, error
    Column("reason", "string", nullable=False),  # why there is no score, or no text was read; else empty
    Column("level_probabilities", "scores", nullable=False),
    Column("category_probabilities", "scores", nullable=False),
    Column("calibrated", "bool", nullable=False),
    Column("text", "string", nullable=False),  # caption or conversation, its first 1,000 characters
    Column("read_text", "string"),  # read in the image; empty: none found, null: not read
    Column("decided_by", "string"),  # image, prompt, read_text; null where there is no image
    Column("model", "string", nullable=False),  # hash of the modules and the tower
    Column("policy", "string", nullable=False),  # hash of thresholds and actions
)

LATER_COLUMNS = ("read_text", "decided_by")
"""Those of `COLUMNS` that scans of earlier versions lack; their rows have null there."""

THUMBNAIL_COLUMNS = (
    Column("source", "string", nullable=False),
    Column("shard", "string", nullable=False),
    Column("index", "int32", nullable=False),
    Column("thumbnail", "binary", nullable=False),  # WebP
    Column("heatmap", "binary"),  # uint8, row by row; null without one
    Column("heatmap_height", "int32"),
    Column("heatmap_width", "int32"),
)


def part_name(number: int) -> str:
    """The file of a shard, by its number in the plan."""
    return f"part-{number:05d}.parquet"
