"""Photographs and emoji of the development data: encoded, as they came, with their labels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

_CATEGORIES = {"none": "clean", "hazard": "hazards"}
TUNE_SHARE = 20
"""One in so many training photographs is kept for tuning."""
BLOCK = 16
"""Neighbours of photos_native that stay in one split: frames of one film follow each other."""
PACKS = ("photos", "photos_native")


@dataclass(frozen=True)
class Photographs:
    """Pictures of one split; every field holds n entries. `encoded` are the files' bytes, `packs` their folders."""

    encoded: list[bytes]
    labels: list[str]
    captions: list[str]
    risk_levels: list[str]
    risk_categories: list[str]
    packs: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        """One picture, RGB in its own size; what is transparent stands on near-white paper."""
        image: Image.Image = Image.open(io.BytesIO(self.encoded[index]))
        if image.mode == "RGBA":
            paper = Image.new("RGBA", image.size, (245, 245, 245, 255))
            image = Image.alpha_composite(paper, image)
        return image.convert("RGB")

    def risky(self, index: int) -> bool:
        """Whether a picture's level is another one than safe."""
        return self.risk_levels[index] != "safe"


def load_photographs(folder: Path | str, *, split: str, packs: Sequence[str] = PACKS) -> Photographs:
    """Photographs of a split ("train", "tune", "test") under `folder`/photos and `folder`/photos_native.

    "tune" is a fixed twentieth of the training photographs. A pack that is not there is left out.

    Raises:
        FileNotFoundError: none of the packs is there.
    """
    return _load(Path(folder), split=split, packs=packs)


def load_emoji(folder: Path | str, *, split: str) -> Photographs:
    """Emoji of a split, from `folder`/emoji; raises FileNotFoundError where there are none."""
    return _load(Path(folder), split=split, packs=("emoji",))


def _load(folder: Path, *, split: str, packs: Sequence[str]) -> Photographs:
    names = ["image", "label", "caption", "risk_category", "risk_level", "source", "split"]
    kept = []
    for pack in packs:
        rows = [
            row
            for file in sorted((folder / pack).glob("*.parquet"))
            for row in pq.read_table(file, columns=names).to_pylist()
        ]
        kept += [(row, pack) for i, row in enumerate(rows) if _split_of(row, _group(row, pack, i)) == split]
    if not kept:
        raise FileNotFoundError(f"{folder} holds no Parquet files in {' or '.join(packs)} with split {split}")
    return Photographs(
        encoded=[row["image"]["bytes"] for row, _ in kept],
        labels=[row["label"] for row, _ in kept],
        captions=[row["caption"] for row, _ in kept],
        risk_levels=[row["risk_level"] for row, _ in kept],
        risk_categories=[_CATEGORIES.get(row["risk_category"], row["risk_category"]) for row, _ in kept],
        packs=[pack for _, pack in kept],
    )


def _group(row: dict[str, object], pack: str, index: int) -> bytes:
    """What decides whether a row is kept for tuning: its bytes, or its neighbourhood."""
    if pack == "photos_native":
        return f"{row['source']}:{index // BLOCK}".encode()
    image = row["image"]
    assert isinstance(image, dict)
    return bytes(image["bytes"])


def _split_of(row: dict[str, object], group: bytes) -> str:
    if row["split"] != "train":
        return "test"
    return "tune" if hashlib.sha256(group).digest()[0] % TUNE_SHARE == 0 else "train"
