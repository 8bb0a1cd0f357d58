"""JPEG files on disk to scores in Parquet, against the bare tower on tensors that are in memory."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from safevlm.backbone.shapes import random_tower
from safevlm.data import FolderSource
from safevlm.errors import SafeVLMError
from safevlm.scan import Loaded, ScanOptions, scan

from .machine import cores
from .measure import measure
from .names import FROM_FILES, SCORING, TENSORS
from .pictures import write_jpegs
from .results import Result
from .setup import Setup


def pipeline(setup: Setup) -> list[Result]:
    """The row: both see the same number of images in batches of the same size."""
    images, batch = setup.amounts.pipeline_images, setup.amounts.pipeline_batch
    tower = random_tower(setup.sizes, device=setup.device, dtype=setup.dtype)
    model, workers = Loaded(setup.guard().scorer), cores()
    options = ScanOptions(batch_size=batch, workers=workers)
    side = setup.sizes.image_size
    pixels = torch.randn(batch, 3, side, side, device=setup.device, dtype=setup.dtype)
    with TemporaryDirectory(prefix="safevlm-bench-") as name:
        folder = Path(name)
        files = write_jpegs(folder / "images", images)
        source = FolderSource(folder / "images")

        def from_tensors() -> None:
            for start in range(0, images, batch):
                tower(pixels[: images - start])

        def from_files() -> None:
            summary = scan(source, model, folder / "scan", options, fresh=True)
            if summary.statuses.get("ok", 0) != images:
                raise SafeVLMError(
                    f"the scan scored {dict(summary.statuses)} of {images} drawn pictures, so its speed says "
                    "nothing; assess one of them with the same shape to see why"
                )

        timings = measure(
            {TENSORS: from_tensors, FROM_FILES: from_files}, device=setup.device, seconds=setup.seconds
        )
        size = sum(path.stat().st_size for path in files) / len(files) / 1000
    cell = setup.cell(
        "pipeline",
        SCORING,
        batch=batch,
        unit="images/s",
        ratio_of="rate",
        against=TENSORS,
        note=f"{images} JPEG files of 640 x 480, {size:.0f} kB on average, {workers} workers",
    )
    return cell.results(timings, items=images)
