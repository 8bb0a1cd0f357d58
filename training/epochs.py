"""Stage 1 against the clock: epochs whose features come from the cache, and epochs that compute them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from safevlm.viewing import ViewOutput, head_output

from .batch import Batch
from .console import only_from
from .datamodule import SafetyDataModule
from .head import HeadTraining
from .options import Cache, Sizes

NO_ROWS = 1e-12
"""Fraction of the rows that go through the LLM: so few that none does."""
EPOCHS = 2
"""The first warms up (workers, allocator, file cache), the second is timed."""


class ClockedHeadTraining(HeadTraining):
    """`HeadTraining` that notes how long its last epoch took, and can do without its cache.

    With `computes` on, each step decodes its images and runs the tower, as a stage without a cache
    would; everything else is the same.
    """

    computes = False
    epoch_seconds = 0.0
    _started = 0.0

    def prepare(self) -> None:
        """Fill the cache; have the loader decode images where the steps need them."""
        super().prepare()
        self.data.decode_images = self.computes

    def scores(self, batch: Batch, *prompts: list[str]) -> tuple[list[ViewOutput], list[int]]:
        """The head on features from the cache, or on those of the batch's images."""
        if not self.computes:
            return super().scores(batch, *prompts)
        assert self.guard is not None, "it is loaded in setup, as rows may go through the LLM"
        images = [image for image in batch["images"] if image is not None]
        views = self.tower(self.tower.preprocess(images)).views
        outputs = [
            head_output(self.safety, views, table=self.prompt_table, prompts=texts) for texts in prompts
        ]
        return outputs, list(range(len(images)))

    def on_train_epoch_start(self) -> None:
        """Start the clock once the device is idle."""
        self._started = self._now()

    def on_train_epoch_end(self) -> None:
        """Stop the clock once the device is done."""
        self.epoch_seconds = self._now() - self._started

    def _now(self) -> float:
        if self.root_device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class HeadEpochs:
    """Times epochs of stage 1 on one table, in turn with and without the cache.

    Args:
        backbone: folder of the vision-language model; its LLM is loaded and not run.
        table: a training table whose rows all have images and responses.
        folder: for the cache and what the runs write.
        sizes: of the fresh modules.
        device: where the training runs.
        dtype: of the tower, such as bfloat16; the steps are mixed precision where it is not float32.
        batch_size: rows in a step.
        workers: processes that decode; 0 decodes in this one.
    """

    def __init__(
        self,
        backbone: Path,
        table: Path,
        folder: Path,
        *,
        sizes: Sizes,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int,
        workers: int,
    ) -> None:
        name: Any = str(dtype).removeprefix("torch.")
        self.stage = ClockedHeadTraining(
            backbone=str(backbone),
            output_dir=str(folder / "head"),
            overwrite=True,
            lm_fraction=NO_ROWS,
            dtype=name,
            sizes=sizes,
            cache=Cache(folder=str(folder / "features"), batch_size=batch_size),
        )
        self.data = SafetyDataModule(str(table), batch_size=batch_size, workers=workers, tune_fraction=0.0)
        precision = {"bfloat16": "bf16-mixed", "float16": "16-mixed"}.get(name, "32-true")
        self._options: dict[str, Any] = {
            "accelerator": "gpu" if device.type == "cuda" else "cpu",
            "devices": [device.index or 0] if device.type == "cuda" else 1,
            "precision": precision,
            "max_epochs": EPOCHS,
            "default_root_dir": str(folder),
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }

    def seconds(self, *, computes: bool) -> float:
        """Train, and return the seconds of the last epoch."""
        self.stage.computes = computes
        self.stage.train()
        with only_from(logging.WARNING, "lightning.pytorch"):
            Trainer(**self._options).fit(self.stage, datamodule=self.data)
        return self.stage.epoch_seconds
