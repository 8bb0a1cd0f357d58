"""A bank of pre-rendered scenes: pixels on disk, so that training never waits for drawing."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .scenes import HARMLESS_PHRASES, RISKY_PHRASES, Scene, render

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneBank:
    """Rendered scenes: pixels uint8 (n, size, size, 3) and n dictionaries of the scene's other fields."""

    pixels: NDArray[np.uint8]
    facts: list[dict[str, str | int]]

    def __len__(self) -> int:
        return len(self.facts)

    def scene(self, index: int) -> Scene:
        """One entry as a `Scene`."""
        return Scene(image=Image.fromarray(self.pixels[index]), **self.facts[index])  # type: ignore[arg-type]


def open_bank(folder: Path, *, split: str, count: int, seed: int = 0, free_phrases: float = 0.0) -> SceneBank:
    """Open the bank of these arguments under `folder`, rendering it first where it is missing.

    `free_phrases` is the share of written scenes whose words are a random verb and object
    (never a pair of the test split): they teach reading, not following.
    """
    stem = f"scenes-{split}-{count}-{seed}-{free_phrases:g}"
    pixels, facts = folder / f"{stem}.npy", folder / f"{stem}.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [_scene(seed * 1_000_003 + i, split, free_phrases) for i in range(count)]
        np.save(pixels, np.stack([np.asarray(scene.image) for scene in scenes]))
        rows = [{key: value for key, value in vars(scene).items() if key != "image"} for scene in scenes]
        facts.write_text(json.dumps(rows), encoding="utf-8")
        LOGGER.info("rendered %d scenes to %s", count, pixels)
    return SceneBank(np.load(pixels, mmap_mode="r"), json.loads(facts.read_text(encoding="utf-8")))


def _scene(seed: int, split: str, free_phrases: float) -> Scene:
    scene = render(seed, split)
    if not scene.text or random.Random(seed).random() >= free_phrases:
        return scene
    return render(seed, split, scene.kind, name=free_phrase(seed))


def free_phrase(seed: int) -> str:
    """A random verb and object of the training phrases, in lower case; never a test phrase."""
    rng = random.Random(f"phrase:{seed}")
    known = [phrase.split() for phrase in (*RISKY_PHRASES["train"], *HARMLESS_PHRASES["train"])]
    kept = {tuple(phrase.split()) for phrase in (*RISKY_PHRASES["test"], *HARMLESS_PHRASES["test"])}
    while True:
        words = [rng.choice(known)[0], *rng.choice(known)[1:]]
        if tuple(words) not in kept:
            return " ".join(words).lower()
