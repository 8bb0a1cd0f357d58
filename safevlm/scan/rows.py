"""A scored image -> its row, and the row of its thumbnail."""

from __future__ import annotations

import numpy as np

from safevlm.results.schema import ERROR, ResultRow
from safevlm.scan.batch import Entry

TEXT_LENGTH = 1000
"""Characters of a caption or conversation that a row keeps."""


def result_row(entry: Entry) -> ResultRow:
    """The columns that an image has by itself; of a known image, whose score is in the ledger, those without it."""
    width, height = entry.size or (None, None)
    row: ResultRow = {
        "id": entry.item.id,
        "index": entry.index,
        "number": entry.item.number,
        "sha256": entry.sha256 or None,
        "text": entry.item.text[:TEXT_LENGTH],
        "width": width,
        "height": height,
        "phash": entry.phash or None,
    }
    found = entry.assessment
    if found is None:
        return row
    return row | {
        "score": found.score,
        "level": found.level,
        "category": found.category,
        "verdict": found.verdict.value,
        "status": entry.status,
        "reason": found.reason,
        "level_probabilities": dict(found.level_probabilities),
        "category_probabilities": dict(found.category_probabilities),
        "calibrated": found.calibrated,
        "read_text": found.read_text,
        "decided_by": None if entry.status == ERROR else found.decided_by,
    }


def thumbnail_row(entry: Entry) -> ResultRow:
    """The thumbnail and the heatmap, as uint8, of an image that has a thumbnail."""
    heatmap = None if entry.assessment is None else entry.assessment.heatmap
    row: ResultRow = {"index": entry.index, "thumbnail": entry.thumbnail}
    if heatmap is None:
        return row | {"heatmap": None, "heatmap_height": None, "heatmap_width": None}
    height, width = heatmap.shape
    grey = (heatmap * 255).round().clip(0, 255).astype(np.uint8)
    return row | {"heatmap": grey.tobytes(), "heatmap_height": height, "heatmap_width": width}
