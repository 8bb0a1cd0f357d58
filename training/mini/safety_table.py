"""The mini guard's training table, as `safevlm train` reads it: rendered scenes and, where given, photographs."""

from __future__ import annotations

import io
import logging
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import auto_cli
from PIL import Image

from safevlm.files import replacing

from .examples import Row, Stage, safety_rows

LOGGER = logging.getLogger(__name__)
ROW_GROUP = 1000
"""Rows that are in memory at a time."""


def write_safety_table(
    out: Path,
    *,
    stage: Stage,
    train: int = 30_000,
    tune: int = 2_500,
    seed: int = 0,
    photos: Path | None = None,
    without: tuple[str, ...] = (),
) -> None:
    """Write a Parquet table of labelled examples; none is of the test split.

    Args:
        out: the Parquet file.
        stage: what it trains: head or joint.
        train: rows to train on.
        tune: rows to choose and calibrate by, beside all photographs that are kept for it.
        seed: of the scenes, words and the draw among photographs.
        photos: folder with photos/, photos_native/, emoji/ and prompts/; scenes alone without it.
        without: kinds of rows (`examples.SHARES`) that are left out of train, for ablations.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with replacing(out) as target, pq.ParquetWriter(target.file, SCHEMA) as writer:
        rows = (
            row
            for split, count in (("train", train), ("tune", tune))
            for row in safety_rows(split, count, seed, photos, stage=stage, without=without)
        )
        while part := [_encoded(row) for row in islice(rows, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(part, SCHEMA))
            written += len(part)
    LOGGER.info("%d rows in %s", written, out)


_TEXT = ("prompt", "response", "read_text", "risk_level", "risk_category", "labels_of", "split")
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in _TEXT),
    ]
)


def _encoded(row: Row) -> Row:
    image = row["image"]
    return {**row, "image": None if image is None else {"bytes": _jpeg(image), "path": None}}


def _jpeg(image: Image.Image) -> bytes:
    """The same encoding for all, so that it says nothing of the source."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    auto_cli(write_safety_table)
