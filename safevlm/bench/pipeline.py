"""Row `pipeline`: JPEG files to scores in Parquet, compared with the bare tower on tensors in memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from safevlm.scan import ScanOptions

from .images import write_jpegs
from .machine import cores
from .measure import measure
from .names import FROM_FILES, SCORING, TENSORS
from .results import Result
from .scan import from_tensors, whole
from .setup import Setup


def pipeline(setup: Setup) -> list[Result]:
    """Measure both on the same number of images in batches of the same size."""
    images, batch = setup.amounts.pipeline_images, setup.amounts.pipeline_batch
    options = ScanOptions(batch_size=batch, workers=cores())
    scorer = setup.scorer()
    with TemporaryDirectory(prefix="safevlm-bench-") as name:
        folder = Path(name)
        files = write_jpegs(folder / "images", images)
        uri, out = f"folder:{folder / 'images'}", folder / "scan"
        from_files = partial(whole, uri, scorer, out, options, images=images)
        timings = measure(
            {TENSORS: from_tensors(setup, images, batch), FROM_FILES: from_files},
            device=setup.device,
            seconds=setup.seconds,
        )
        size = sum(path.stat().st_size for path in files) / len(files) / 1000
    cell = setup.cell(
        "pipeline",
        SCORING,
        batch=batch,
        unit="images/s",
        ratio_of="rate",
        against=TENSORS,
        note=f"{images} JPEG files of 640 x 480, {size:.0f} kB on average, {options.workers} workers",
    )
    return cell.results(timings, items=images)
