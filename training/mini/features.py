"""What the frozen tower sees in the training images, computed once and kept in a file."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .tower import CHANNELS, MEAN, PLACES, STD

LOGGER = logging.getLogger(__name__)
STEP = 6 / 255
"""The tower ends in ReLU6, so its features lie in [0, 6]: a byte each, in steps of 1/42."""
BATCH = 8
"""Images a pass: on a CPU more of them leave the caches, and take longer each."""
CHUNK = 512
WORKERS = 2

Features: TypeAlias = NDArray[np.uint8]
"""(n, 49, 1280): image, place (row by row), channel."""
Draw: TypeAlias = Callable[[int], Image.Image]
"""The number of an image -> RGB of 224 x 224 pixels."""


def open_features(
    path: Path, tower: nn.Module, *, count: int, draw: Draw, dtype: torch.dtype = torch.float32
) -> Features:
    """The features of `count` images, computed where `path` does not hold them yet.

    Args:
        path: `.npy` file; written under another name first, so that an interrupted run leaves no half.
        tower: as `tower.load_tower` gives it.
        draw: gives the images; goes to other processes, so it must be picklable.
        dtype: that the tower computes in.

    Raises:
        ValueError: the file holds another number of images.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        found = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(count, PLACES, CHANNELS))
        done = 0
        for values in _computed(tower, draw, count, dtype):
            found[done : done + len(values)] = values
            done += len(values)
            LOGGER.info("%s: %d of %d images", path.name, done, count)
        found.flush()
        part.rename(path)
    features: Features = np.load(path, mmap_mode="r")
    if len(features) != count:
        raise ValueError(f"{path} holds {len(features)} images, {count} are asked for; remove it")
    return features


def _computed(tower: nn.Module, draw: Draw, count: int, dtype: torch.dtype) -> Iterator[Features]:
    """Chunk after chunk, by worker processes where there is more than one."""
    parts = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if len(parts) == 1:
        _start(tower, draw, dtype)
        yield _work(parts[0])
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        WORKERS, context, initializer=_one_thread, initargs=(tower, draw, dtype)
    ) as pool:
        yield from pool.map(_work, parts)


def open_views(
    stem: Path, tower: nn.Module, *, count: int, view: Callable[[int], Draw], views: int, dtype: torch.dtype
) -> list[Features]:
    """`open_features` of the same images in several views, in files named `stem`, a hyphen and the view's number.

    Args:
        view: number of a view -> what gives the images in it.
    """
    return [
        open_features(
            stem.with_name(f"{stem.name}-{number}.npy"), tower, count=count, draw=view(number), dtype=dtype
        )
        for number in range(views)
    ]


_work_with: dict[str, Any] = {}
"""What a worker process was started with: tower, draw, dtype."""


def _one_thread(tower: nn.Module, draw: Draw, dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    _start(tower, draw, dtype)


def _start(tower: nn.Module, draw: Draw, dtype: torch.dtype) -> None:
    _work_with.update(tower=tower.to(dtype), draw=draw, dtype=dtype)


def _work(part: tuple[int, int]) -> Features:
    draw, found = _work_with["draw"], []
    for start in range(*part, BATCH):
        images = [np.array(draw(index)) for index in range(start, min(start + BATCH, part[1]))]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        found.append(encode(_work_with["tower"], pixels, dtype=_work_with["dtype"]))
    return np.concatenate(found)


@torch.inference_mode()
def encode(tower: nn.Module, pixels: Tensor, *, dtype: torch.dtype = torch.float32) -> Features:
    """uint8 (n, 3, 224, 224) -> features (n, 49, 1280)."""
    values = ((pixels.float() / 255 - MEAN) / STD).to(dtype, memory_format=torch.channels_last)
    grid = tower(values).float()
    found: Features = (grid.flatten(2).transpose(1, 2) / STEP).round().to(torch.uint8).numpy()
    return found


def decode(features: Features) -> Tensor:
    """float32 (n, 49, 1280) in [0, 6]."""
    return torch.from_numpy(np.array(features)).float() * STEP
