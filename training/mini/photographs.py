"""Photographs and emoji of the development data, as arrays with their labels."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

_CATEGORIES = {"none": "clean", "hazard": "hazards"}
TUNE_SHARE = 20
"""One in so many training photographs is kept for tuning, chosen by the hash of its bytes."""


@dataclass(frozen=True)
class Photographs:
    """Pictures of one split: pixels uint8 (n, 64, 64, 3); the other fields hold n entries."""

    pixels: NDArray[np.uint8]
    labels: list[str]
    captions: list[str]
    risk_levels: list[str]
    risk_categories: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """One picture as an RGB image of 64 x 64 pixels."""
        return Image.fromarray(self.pixels[index])


def load_photographs(folder: Path | str, *, split: str, cache: Path | None = None) -> Photographs:
    """Photographs of a split ("train", "tune", "test") under `folder`/photos64.

    "tune" is a fixed twentieth of the training photographs. `cache` is a folder that keeps the
    decoded pixels.
    """
    files = sorted((Path(folder) / "photos64").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}/photos64 holds no Parquet files")
    return _load(files, split=split, cache=cache, prefix="photos")


def load_emoji(folder: Path | str, *, split: str, cache: Path | None = None) -> Photographs:
    """Emoji of a split on white, 64 x 64 pixels, from `folder`/emoji."""
    files = sorted((Path(folder) / "emoji").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder}/emoji holds no Parquet files")
    return _load(files, split=split, cache=cache, prefix="emoji")


def _load(files: list[Path], *, split: str, cache: Path | None, prefix: str) -> Photographs:
    names = ["image", "label", "caption", "risk_category", "risk_level", "split"]
    rows = [row for file in files for row in pq.read_table(file, columns=names).to_pylist()]
    rows = [row for row in rows if _split_of(row) == split]
    path = cache / f"{prefix}-{split}.npy" if cache else None
    if path is not None and path.exists():
        pixels = np.load(path, mmap_mode="r")
    else:
        pixels = np.stack([_decode(row["image"]["bytes"]) for row in rows])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, pixels)
    return Photographs(
        pixels=pixels,
        labels=[row["label"] for row in rows],
        captions=[row["caption"] for row in rows],
        risk_levels=[row["risk_level"] for row in rows],
        risk_categories=[_CATEGORIES.get(row["risk_category"], row["risk_category"]) for row in rows],
    )


def _split_of(row: dict[str, object]) -> str:
    if row["split"] != "train":
        return "test"
    image = row["image"]
    assert isinstance(image, dict)
    digest = hashlib.sha256(image["bytes"]).digest()
    return "tune" if digest[0] % TUNE_SHARE == 0 else "train"


def _decode(data: bytes) -> NDArray[np.uint8]:
    image: Image.Image = Image.open(io.BytesIO(data))
    if image.mode == "RGBA":
        paper = Image.new("RGBA", image.size, (245, 245, 245, 255))
        image = Image.alpha_composite(paper, image)
    image = image.convert("RGB")
    if image.size != (64, 64):
        image = image.resize((64, 64), Image.Resampling.BOX)
    return np.asarray(image)
