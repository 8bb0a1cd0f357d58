"""Row `head`: an epoch of head training that computes its features, and one that reads them from the cache."""

from __future__ import annotations

import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from safevlm.errors import MissingExtraError

from .images import write_jpegs
from .machine import cores
from .measure import interleave
from .names import CACHED, COMPUTED, HEAD_TRAINING
from .results import Result
from .setup import Setup

QUESTION, ANSWER = "What is shown here?", "Shapes of many colours."


def head(setup: Setup) -> list[Result]:
    """Measure stage 1 without the LLM, with the library's own recipe and trainer, on drawn images.

    Raises:
        MissingExtraError: lightning is not installed.
    """
    if find_spec("lightning") is None:
        raise MissingExtraError("lightning", "train")
    from safevlm.training.epochs import HeadEpochs
    from safevlm.training.options import Sizes

    images, batch = setup.amounts.head_images, setup.amounts.head_batch
    workers = cores() if setup.device.type == "cuda" else 0  # on a CPU training itself uses the cores
    with TemporaryDirectory(prefix="safevlm-bench-") as name:
        folder = Path(name)
        backbone = setup.tower_and_embeddings()
        backbone.model.save_pretrained(folder / "backbone")
        backbone.processor.save_pretrained(folder / "backbone")
        del backbone
        epochs = HeadEpochs(
            folder / "backbone",
            write_table(folder, images, setup),
            folder,
            sizes=Sizes(setup.config.taxonomy.name, **setup.modules),
            device=setup.device,
            dtype=setup.dtype,
            batch_size=batch,
            workers=workers,
        )
        timings = interleave(
            {
                COMPUTED: partial(epochs.seconds, computes=True),
                CACHED: partial(epochs.seconds, computes=False),
            },
            device=setup.device,
            seconds=setup.seconds,
        )
    cell = setup.cell(
        "head",
        HEAD_TRAINING,
        batch=batch,
        unit="images/s",
        ratio_of="rate",
        against=COMPUTED,
        note=f"{images} JPEG files of 640 x 480 per epoch, {workers} workers decode, no LLM",
    )
    return cell.results(timings, items=images)


def write_table(folder: Path, images: int, setup: Setup) -> Path:
    """Write images and a training table with alternating labels; returns the table's path."""
    taxonomy = setup.config.taxonomy
    risky = taxonomy.risky_categories
    rows = []
    for number, path in enumerate(write_jpegs(folder / "images", images)):
        safe = number % 2 == 0
        rows.append(
            {
                "image": path.relative_to(folder).as_posix(),
                "prompt": QUESTION,
                "response": ANSWER,
                "risk_level": taxonomy.safe_level if safe else taxonomy.levels[-1],
                "risk_category": taxonomy.clean if safe else risky[number // 2 % len(risky)],
                "split": "train",
            }
        )
    table = folder / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return table
