"""The end of a run: refuse what is broken or untrained, choose weights, calibration and thresholds, write the folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safevlm.calibration import calibrate, choose_operating_point, choose_reading, level_probabilities
from safevlm.errors import CheckpointError, SafeVLMError, TrainingError
from safevlm.types import IGNORED

from .export import best_keeper, restore, run_folder, write_whole
from .finite import REMEDY, all_finite, not_finite
from .plots import write_plots
from .tuning import TuneRow, stacked

if TYPE_CHECKING:
    from .base import TrainingStage

LOGGER = logging.getLogger(__name__)
NOTHING_CHOSEN = "no operating point and no calibration, so scores are not called calibrated"


def finish(stage: TrainingStage, before: list[float]) -> None:
    """Write the output folder of a run that has ended; process 0 does, and the others wait for it.

    Args:
        stage: after its last step.
        before: `sums` of what is trained, from before the first step.

    Raises:
        TrainingError: weights or logits that are not finite, or no weight that changed; nothing is written.
        CheckpointError: the best weights are asked for, and there are none.
        OSError: the disk does not take the folder.
    """
    failed: Exception | None = None
    if stage.trainer.is_global_zero:
        try:
            _write(stage, before)
        except (SafeVLMError, OSError) as error:
            failed = error
    message = stage.trainer.strategy.broadcast("" if failed is None else str(failed))
    if failed is not None:
        raise failed
    if message:
        raise TrainingError(f"process 0 wrote no weights: {message}")


def _write(stage: TrainingStage, before: list[float]) -> None:
    stage.eval()
    stage.to(stage.root_device)  # the trainer has moved it to the host
    _refuse_not_finite(stage, stage.trained)
    if before == sums(stage.trained):
        raise TrainingError(
            f"no weight changed in {stage.global_step} optimizer steps, so {stage.output_dir} is not written; raise "
            "the learning rate (--model.schedule.lr), and use 32-true where 16-mixed skipped every step"
        )
    _load_chosen_weights(stage)
    with torch.no_grad():
        values = _tune_values(stage)
    if stage.operating.keep:
        LOGGER.info(
            "calibration and thresholds stay those of %s; safevlm threshold chooses new ones", stage.start
        )
    elif values is None:
        reason = "no tune row has an image" if stage.data.tune_rows else "there are no tune rows"
        LOGGER.warning("%s: %s", NOTHING_CHOSEN, reason)
    else:
        stage.config = stage.config.with_changes(**choose(stage, values))
    _refuse_not_finite(stage, {**stage.safety.state_dict(), **stage.trained})
    write_whole(stage.output_dir, lambda folder: stage.save_folder(folder, stage.config))
    LOGGER.info("wrote %s", stage.output_dir)
    if stage.trainer.loggers:
        folder = run_folder(stage.output_dir)
        write_plots(folder, stage.history, values, stage.config)
        LOGGER.info("plots and logs of the run: %s", folder)


def sums(tensors: Mapping[str, Tensor]) -> list[float]:
    """Two sums of each tensor, which training changes."""
    values = [tensor.detach().double() for tensor in tensors.values()]
    return [float(number) for value in values for number in (value.sum(), value.abs().sum())]


def _load_chosen_weights(stage: TrainingStage) -> None:
    """Load the best epoch's weights, or log why the last ones stay."""
    best = best_keeper(stage.trainer)
    if stage.export == "last":
        LOGGER.info("writing the last weights, as asked for (--export last)")
    elif best is not None and best.best_model_path and stage.can_choose:
        epoch = restore(best.best_model_path, stage.trained)
        score = float("nan") if best.best_model_score is None else float(best.best_model_score)
        LOGGER.info("writing the weights of epoch %d, the best: %s %.4g", epoch, best.monitor, score)
    elif stage.export == "best":
        raise CheckpointError(
            "no epoch was measured on the tune rows, so none is the best; write the last weights instead "
            "(--export last --ckpt_path last)"
        )
    else:
        measured = (
            "no epoch was measured and kept" if stage.can_choose else "no tune row has a label or an answer"
        )
        LOGGER.warning("writing the last weights: %s, so none is known to be the best", measured)


def _tune_values(stage: TrainingStage) -> dict[str, Tensor] | None:
    """Logits and labels of the tune rows with the weights that are written, checked in any case; None for no rows."""
    data = stage.data
    tuned: dict[int, TuneRow] = {}
    for batch in data.tune_dataloader() if data.tune_rows else [data.example_batch()]:
        tuned.update(stage.tune_rows(batch))
    if not tuned:
        return None
    values = stacked(tuned)
    if not all_finite([values["level"], values["category"], values["level_prompt"]]):
        raise TrainingError(
            f"the trained head's logits are not finite, so {stage.output_dir} is not written; {REMEDY}"
        )
    return values if data.tune_rows else None


def choose(stage: TrainingStage, values: dict[str, Tensor]) -> dict[str, Any]:
    """Calibration, and the points that are chosen on the scores which it gives for the images alone.

    Args:
        stage: whose options say what is chosen.
        values: logits and labels of the tune rows, as `tuning.stacked` gives them.

    Returns:
        Fields of the config -> what was chosen; None, with the reason in the log, where nothing could be.
    """
    wanted, data = stage.operating, f"{Path(stage.data.table).name}, tune split"
    calibration = calibrate(
        torch.cat([values["level"], values["level_prompt"]]),
        torch.cat([values["levels"], values["levels_prompt"]]),
        data=data,
        items=int((values["levels"] != IGNORED).sum()),
        prior=wanted.prior,
    )
    point = choose_operating_point(
        1 - level_probabilities(values["level"], calibration)[:, 0],
        values["levels"],
        false_positive_rate=wanted.false_positive_rate,
        data=data,
    )
    reading = None
    if wanted.reading_category is not None:
        reading = choose_reading(
            values["category"].double().softmax(-1),
            values["categories"],
            stage.config.taxonomy,
            category=wanted.reading_category,
            recall=wanted.reading_recall,
            data=data,
        )
    return {"calibration": calibration, "operating_point": point, "reading": reading}


def _refuse_not_finite(stage: TrainingStage, tensors: Mapping[str, Tensor]) -> None:
    if names := not_finite(tensors):
        raise TrainingError(
            f"not finite at the end of training: {names}; {stage.output_dir} is not written. {REMEDY}"
        )
