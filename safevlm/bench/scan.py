"""Row `scan`: scans of every source format compared with the bare tower, and the start of a finished scan."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from safevlm.backbone.shapes import random_tower
from safevlm.data import open_source
from safevlm.errors import SafeVLMError
from safevlm.results.schema import OK
from safevlm.scan import ScanOptions
from safevlm.scan import scan as run_scan
from safevlm.scorer import RiskScorer

from .formats import write_formats, write_tars
from .images import write_jpegs
from .machine import cores
from .measure import MIN_ROUNDS, Timing, measure
from .names import FINISHED, START_UP, TENSORS, WHOLE_SCAN
from .results import Result
from .setup import MINI, Setup


def scan(setup: Setup) -> list[Result]:
    """Measure a scan of each source format, and the start of a finished scan of many shards.

    Raises:
        MissingExtraError: webdataset, datasets or pyarrow is not installed.
    """
    with TemporaryDirectory(prefix="safevlm-bench-") as name:
        return [*_formats(setup, Path(name)), *_finished(setup, Path(name) / "finished")]


def _formats(setup: Setup, folder: Path) -> list[Result]:
    images, batch = setup.amounts.pipeline_images, setup.amounts.pipeline_batch
    files = write_jpegs(folder / "images", images)
    scorer, options = setup.scorer(), ScanOptions(batch_size=batch, workers=cores())
    calls: dict[str, Callable[[], None]] = {TENSORS: from_tensors(setup, images, batch)}
    for kind, uri in write_formats(folder, files).items():
        calls[f"scan, {kind}"] = partial(whole, uri, scorer, folder / "scans" / kind, options, images=images)
    (folder / "scans").mkdir()
    cell = setup.cell(
        "scan",
        WHOLE_SCAN,
        batch=batch,
        unit="images/s",
        ratio_of="rate",
        against=TENSORS,
        note=f"{images} JPEG images of 640 x 480 in each format, {options.workers} workers, rows in Parquet",
    )
    timings = measure(calls, device=setup.device, seconds=setup.seconds)
    return cell.results(timings, items=images)


def from_tensors(setup: Setup, images: int, batch: int) -> Callable[[], None]:
    """A call of the bare tower on `images` preprocessed images on its device, in batches."""
    tower, side = random_tower(setup.sizes, device=setup.device, dtype=setup.dtype), setup.sizes.image_size
    pixels = torch.randn(batch, 3, side, side, device=setup.device, dtype=setup.dtype)

    def call() -> None:
        for start in range(0, images, batch):
            tower(pixels[: images - start])

    return call


def whole(uri: str, model: RiskScorer | str, out: Path, options: ScanOptions, *, images: int) -> None:
    """Run a whole scan. Raises SafeVLMError unless every image was scored."""
    summary = run_scan(open_source(uri), model, out, options, fresh=out.exists())
    if summary.statuses.get(OK, 0) != images:
        raise SafeVLMError(
            f"the scan of {uri} gave {dict(summary.statuses)} for {images} images, so its speed means nothing; "
            "assess one of the images with the same shape to see why"
        )


def _finished(setup: Setup, folder: Path) -> list[Result]:
    shards = setup.amounts.finished_shards
    (folder / "tars").mkdir(parents=True)
    files = write_jpegs(folder / "images", shards)
    uri, out = "wds:" + write_tars(folder / "tars", files, per_tar=1), folder / "out"
    whole(uri, MINI, out, ScanOptions(workers=cores()), images=shards)
    command = [sys.executable, "-m", "safevlm.cli", "scan", uri, "--out", str(out)]
    command += ["--workers", str(cores())]
    seconds = []
    for _ in range(MIN_ROUNDS):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise SafeVLMError(f"the finished scan could not be started again: {done.stderr.strip()[-500:]}")
    cell = setup.cell(
        "scan",
        START_UP,
        batch=None,
        unit="ms",
        ratio_of="time",
        against=FINISHED,
        note=f"`safevlm scan` on a finished scan of {shards} shards, with the start of the interpreter; only the first round writes the report",
    )
    return cell.results({FINISHED: Timing(tuple(seconds))})
