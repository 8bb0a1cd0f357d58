"""The mini guard's training table, as `safevlm train` reads it: rendered scenes and, where given, photographs."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import auto_cli
from PIL import Image

from .examples import safety_rows

LOGGER = logging.getLogger(__name__)


def write_safety_table(
    out: Path, *, train: int = 16000, tune: int = 2000, seed: int = 0, photos: Path | None = None
) -> None:
    """Write a Parquet table of labelled examples; half of each split is risky, and none is of the test split.

    Args:
        out: the Parquet file.
        train: rows to train on.
        tune: rows to choose and calibrate by.
        seed: of the scenes, words and the draw among photographs.
        photos: folder with photos64/ and emoji/; scenes alone without it.
    """
    rows = [
        {**row, "image": {"bytes": _png(row["image"]), "path": None}}
        for split, count in (("train", train), ("tune", tune))
        for row in safety_rows(split, count, seed, photos)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out)
    LOGGER.info("%d rows in %s", len(rows), out)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    auto_cli(write_safety_table)
