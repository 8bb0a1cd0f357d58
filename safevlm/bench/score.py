"""Row `score`: the bare tower compared with tower and safety modules, plain and folded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from safevlm.backbone.bare import BareTower
from safevlm.backbone.shapes import random_tower
from safevlm.scorer import RiskScorer

from .images import make_images
from .measure import measure
from .memory import fitting, weight_bytes
from .names import BARE_TOWER, FOLDED, PLAIN, SCORING
from .results import Result
from .setup import Setup


def score(setup: Setup) -> list[Result]:
    """Measure every batch size on preprocessed images that are on the device already."""
    tower = random_tower(setup.sizes, device=setup.device, dtype=setup.dtype)
    scorer = setup.scorer()
    precision = next(scorer.safety.parameters()).dtype
    weights = {
        BARE_TOWER: weight_bytes(tower.module),
        PLAIN: weight_bytes(tower.module, scorer.safety),
        FOLDED: weight_bytes(scorer.tower.module, scorer.safety),
    }
    found: list[Result] = []
    for batch in setup.amounts.score_batches:
        cell = setup.cell(
            "score",
            SCORING,
            batch=batch,
            unit="images/s",
            ratio_of="time",
            against=BARE_TOWER,
            note=f"modules in {str(precision).removeprefix('torch.')}",
        )
        with fitting(setup.device) as problem:
            calls = _calls(setup, tower, scorer, batch)
            timings = measure(calls, device=setup.device, seconds=setup.seconds)
            found += cell.results(timings, items=batch, weights=weights)
        found += [cell.failed(name, problem[0]) for name in weights if problem]
    return found


def _calls(setup: Setup, tower: BareTower, scorer: RiskScorer, batch: int) -> dict[str, Callable[[], object]]:
    """Variant -> call that scores a batch."""
    modules, side = scorer.safety, setup.sizes.image_size
    precision = next(modules.parameters()).dtype
    pixels = torch.randn(batch, 3, side, side, device=setup.device, dtype=setup.dtype)
    prepared = scorer.tower.on_device(scorer.tower.preprocess(make_images(batch)))

    @torch.no_grad()
    def plain() -> object:
        features, grid = tower.features(pixels)
        return modules(features.to(precision), grid)

    @torch.no_grad()
    def folded() -> object:
        return scorer.score(scorer.project(scorer.tower(prepared, for_replay=False).views))

    return {BARE_TOWER: partial(tower, pixels), PLAIN: plain, FOLDED: folded}
