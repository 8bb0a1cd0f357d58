"""Which weights a run writes, and how: the best or the last, as one whole folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from safevlm.checkpoint import CONFIG
from safevlm.errors import CheckpointError
from safevlm.files import replacing_folder

Export: TypeAlias = Literal["best", "last"]


def run_folder(output_dir: str | Path) -> Path:
    """Where a run keeps its logs, plots and checkpoints: beside the folder that it writes."""
    return Path(f"{output_dir}.run")


def best_keeper(trainer: Trainer) -> ModelCheckpoint | None:
    """The trainer's checkpoint callback that keeps the best epoch by a tune metric."""
    for callback in reversed(trainer.checkpoint_callbacks):
        if isinstance(callback, ModelCheckpoint) and (callback.monitor or "").startswith("tune/"):
            return callback
    return None


def restore(path: str, trained: Mapping[str, Tensor]) -> int:
    """Copy the trained weights of a Lightning checkpoint into the parameters of a model; returns its epoch, from 1.

    Raises:
        CheckpointError: the file is missing, or holds other names.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path}, the best epoch of this run, is missing; write the last weights instead "
            "(--export last --ckpt_path last)"
        )
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    saved = loaded["state_dict"]
    if set(saved) != set(trained):
        raise CheckpointError(f"{path} holds other weights than this run trains; it is another run's")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])
    return int(loaded["epoch"]) + 1


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a checkpoint's folder whole or not at all; its config, without which it is none, is put there last.

    Args:
        folder: of the checkpoint; what it holds beside the files that are written stays.
        write: fills the folder that it is called with.

    Raises:
        OSError: the disk does not take it; what `write` raises passes through, too.
    """
    with replacing_folder(folder, last=CONFIG) as unfinished:
        write(unfinished)
