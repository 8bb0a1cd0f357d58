"""A bank of pre-rendered scenes: pixels on disk, so that training never waits for drawing."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safevlm.files import replacing_folder

from .scenes import SIZE, Scene, render

LOGGER = logging.getLogger(__name__)
CHUNK = 64
"""Scenes that a worker renders at a time; a bank of no more is rendered without workers."""
WORKERS = 2


@dataclass(frozen=True)
class SceneBank:
    """Rendered scenes: a file of pixels, and n dictionaries of the other fields. It can be sent to another process."""

    path: Path
    facts: list[dict[str, str | int]]

    def __len__(self) -> int:
        return len(self.facts)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (n, size, size, 3), mapped from disk."""
        pixels: NDArray[np.uint8] = np.load(self.path, mmap_mode="r")
        return pixels

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "facts": self.facts}

    def scene(self, index: int) -> Scene:
        """One entry as a `Scene`."""
        return Scene(image=Image.fromarray(self.pixels[index]), **self.facts[index])  # type: ignore[arg-type]


def open_bank(folder: Path, *, split: str, count: int, seed: int = 0, size: int = SIZE) -> SceneBank:
    """Open the bank of these arguments under `folder`, rendering it first where it is missing.

    `size` is the scenes' edge in pixels.
    """
    stem = f"scenes-{split}-{count}-{seed}-{size}"
    pixels, facts = folder / f"{stem}.npy", folder / f"{stem}.json"
    if not facts.exists():
        with replacing_folder(folder, last=facts.name) as hidden:
            job = partial(render, split=split, size=size)
            seeds = range(seed * 1_000_003, seed * 1_000_003 + count)
            rows = _render_all(hidden / pixels.name, job, seeds, size)
            (hidden / facts.name).write_text(json.dumps(rows), encoding="utf-8")
        LOGGER.info("rendered %d scenes to %s", count, pixels)
    return SceneBank(pixels, json.loads(facts.read_text(encoding="utf-8")))


def _render_all(path: Path, job: partial[Scene], seeds: range, size: int) -> list[dict[str, str | int]]:
    """Write the scenes' pixels as they come; returns their other fields."""
    pixels = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(seeds), size, size, 3)
    )  # one row at a time: the whole does not fit in memory
    rows = []
    for i, scene in enumerate(_scenes(job, seeds)):
        pixels[i] = np.asarray(scene.image)
        rows.append({key: value for key, value in vars(scene).items() if key != "image"})
    pixels.flush()
    return rows


def _scenes(job: partial[Scene], seeds: range) -> Iterator[Scene]:
    if len(seeds) <= CHUNK:
        yield from map(job, seeds)
        return
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        for start in range(0, len(seeds), WORKERS * 4 * CHUNK):
            yield from pool.map(job, seeds[start : start + WORKERS * 4 * CHUNK], chunksize=CHUNK)
