"""The embedded model's world as a concept set in Parquet, for `safevlm train sft`, `dpo` and `ppo`."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import auto_cli
from PIL import Image

from safevlm.files import replacing
from safevlm.labelled import ConceptImage

from .concepts import photo_concepts, scene_concepts

LOGGER = logging.getLogger(__name__)
ROW_GROUP = 200
"""Rows that are encoded at a time."""
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *((name, pa.string()) for name in ("category", "unsafe_concept", "safety_label", "source")),
    ]
)
"""Columns that `safevlm.labelled.read_concepts` reads."""


def write_concept_table(
    out: Path,
    *,
    n: int = 48,
    n_photos: int = 96,
    photos: Path | None = None,
    split: str = "train",
    seed: int = 0,
) -> None:
    """Write drawings and photographs of every thing as a concept set; `source` keeps drawings and packs of photographs apart.

    A thing that is drawn and photographed has one category, that of its drawings.

    Args:
        out: the Parquet file.
        n: drawings of each thing, at least 1.
        n_photos: photographs of each thing, at most.
        photos: folder with photos/ and photos_native/; drawings alone without it.
        split: train, tune or test.
        seed: of the drawings, and of the choice of photographs.

    Raises:
        ValueError: n or n_photos is less than 1.
        FileNotFoundError: no photographs in `photos`.
    """
    if n < 1 or n_photos < 1:
        raise ValueError(f"n is {n} and n_photos {n_photos}; write at least 1 image of each thing")
    drawn = scene_concepts(split, n, seed)
    images = list(drawn.images)
    if photos is not None:
        images += photo_concepts(photos, split, n_photos, seed).images
    categories = {image.concept: image.category for image in drawn.concepts}
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as target, pq.ParquetWriter(target.file, SCHEMA) as writer:
        rows = _rows(images, categories)
        while part := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(part, SCHEMA))
    LOGGER.info("%d images of %d things in %s", len(images), len({one.concept for one in images}), out)


def _rows(images: list[ConceptImage], categories: dict[str, str]) -> Iterator[dict[str, Any]]:
    for image in images:
        yield {
            "image": {"bytes": _encoded(image.image), "path": None},
            "category": categories.get(image.concept, image.category),
            "unsafe_concept": image.concept,
            "safety_label": "Unsafe" if image.unsafe else "Safe",
            "source": image.source,
        }


def _encoded(image: Image.Image | bytes | Path) -> bytes:
    """Photographs as they came, drawings as JPEG."""
    if isinstance(image, bytes):
        return image
    assert isinstance(image, Image.Image), "the embedded world has no files"
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    auto_cli(write_concept_table)
