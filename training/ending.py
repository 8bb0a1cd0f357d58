"""The end of a run: refuse what is broken or untrained, choose the weights, calibrate, write the folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safevlm.calibration import calibrate
from safevlm.config import Calibration
from safevlm.errors import CheckpointError, TrainingError
from safevlm.types import IGNORED

from .export import best_keeper, restore, write_whole
from .finite import REMEDY, all_finite, not_finite
from .tuning import stacked

if TYPE_CHECKING:
    from .recipe import Recipe

LOGGER = logging.getLogger(__name__)


def finish(recipe: Recipe, before: list[float]) -> None:
    """Write the output folder of a run that has ended, on one process.

    Args:
        recipe: after its last step.
        before: `sums` of what is trained, from before the first step.

    Raises:
        TrainingError: weights or logits that are not finite, or no weight that changed; nothing is written.
        CheckpointError: the best weights are asked for, and there are none.
    """
    recipe.eval()
    recipe.to(recipe.trainer.strategy.root_device)  # the trainer has moved it to the host
    _refuse_not_finite(recipe, recipe.trained)
    if before == sums(recipe.trained):
        raise TrainingError(
            f"no weight changed in {recipe.global_step} optimizer steps, so {recipe.output_dir} is not written; raise "
            "the learning rate (--model.schedule.lr), and use 32-true where 16-mixed skipped every step"
        )
    _choose(recipe)
    with torch.no_grad():
        calibration = _calibration(recipe)
    recipe.config = recipe.config.with_changes(calibration=calibration)
    _refuse_not_finite(recipe, {**recipe.safety.state_dict(), **recipe.trained})
    write_whole(recipe.output_dir, lambda folder: recipe.save_folder(folder, recipe.config))
    LOGGER.info("wrote %s", recipe.output_dir)


def sums(tensors: Mapping[str, Tensor]) -> list[float]:
    """Two sums of each tensor, which training changes."""
    values = [tensor.detach().double() for tensor in tensors.values()]
    return [float(number) for value in values for number in (value.sum(), value.abs().sum())]


def _choose(recipe: Recipe) -> None:
    """Put the best epoch's weights in place, or say why the last ones stay."""
    best = best_keeper(recipe.trainer)
    if recipe.export == "last":
        LOGGER.info("writing the last weights, as asked for (--export last)")
    elif best is not None and best.best_model_path and recipe.chooses:
        restore(best.best_model_path, recipe.trained)
        score = float("nan") if best.best_model_score is None else float(best.best_model_score)
        LOGGER.info("writing the best weights: %s %.4f, %s", best.monitor, score, best.best_model_path)
    elif recipe.export == "best":
        raise CheckpointError(
            "no epoch was measured on the tune rows, so none is the best; write the last weights instead "
            "(--export last --ckpt_path last)"
        )
    else:
        measured = (
            "no epoch was measured and kept" if recipe.chooses else "no tune row has a label or an answer"
        )
        LOGGER.warning("writing the last weights: %s, so none is known to be the best", measured)


def _calibration(recipe: Recipe) -> Calibration | None:
    """Fitted on the tune rows with the weights that are written; their logits are looked at in any case."""
    data = recipe.data
    tuned: dict[int, tuple[Tensor, ...]] = {}
    for batch in data.tune_dataloader() if data.tune_rows else data.sample():
        tuned.update(recipe.tune_rows(batch))
    if not tuned:
        LOGGER.warning("no calibration, so scores are not called calibrated: no tune row has an image")
        return None
    values = stacked(tuned)
    if not all_finite([values["level"], values["category"], values["level_prompt"]]):
        raise TrainingError(
            f"the trained head's logits are not finite, so {recipe.output_dir} is not written; {REMEDY}"
        )
    if not data.tune_rows:
        LOGGER.warning("no calibration, so scores are not called calibrated: there are no tune rows")
        return None
    prompted = values["prompted"]
    logits = torch.cat([values["level"], values["level_prompt"][prompted]])
    labels = torch.cat([values["levels"], values["levels"][prompted]])
    items = int((values["levels"] != IGNORED).sum())
    return calibrate(logits, labels, data=f"{Path(data.table).name}, tune split", items=items)


def _refuse_not_finite(recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
    if names := not_finite(tensors):
        raise TrainingError(
            f"not finite at the end of training: {names}; {recipe.output_dir} is not written. {REMEDY}"
        )
