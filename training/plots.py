"""The plots of a run: loss and AUROC over its steps, reliability and scores of the tune rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from safevlm.calibration import level_probabilities
from safevlm.config import SafetyConfig
from safevlm.files import write_bytes
from safevlm.reliability import reliability
from safevlm.report import histogram_plot, line_plot, reliability_plot
from safevlm.types import IGNORED

from .history import History

LOSS, AUROC, RELIABILITY, SCORES = "loss.png", "auroc.png", "reliability.png", "scores.png"


def write_plots(
    folder: Path, history: History, values: Mapping[str, Tensor] | None, config: SafetyConfig
) -> None:
    """Draw what was measured; a plot of an earlier run that this one has no numbers for is removed.

    Args:
        folder: of the run; made where it is missing.
        history: losses and tune metrics.
        values: logits and labels of the tune rows, as `tuning.stacked` gives them; None without tune rows.
        config: whose calibration gives the scores, and whose threshold is drawn.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = _curves(history)
    if values is not None and bool((values["levels"] != IGNORED).any()):
        plots |= _scores(values, config)
    for name in (LOSS, AUROC, RELIABILITY, SCORES):
        if name in plots:
            write_bytes(folder / name, plots[name])
        else:
            (folder / name).unlink(missing_ok=True)


def _curves(history: History) -> dict[str, bytes]:
    def tuned(name: str) -> list[tuple[float, float]]:
        return [(one["step"], one[name]) for one in history.tuned if name in one]

    drawn = {}
    for file, title, unit, ends, lines in (
        (
            LOSS,
            "Loss over the run",
            "loss",
            None,
            {"training rows": history.losses, "tune rows": tuned("tune/loss")},
        ),
        (
            AUROC,
            "Risky against safe tune rows",
            "AUROC",
            (0.5, 1.0),
            {"image alone": tuned("tune/auroc"), "image and text": tuned("tune/auroc_prompt")},
        ),
    ):
        if found := {name: line for name, line in lines.items() if line}:
            drawn[file] = line_plot(found, title=title, x="optimizer step", unit=unit, ends=ends)
    return drawn


def _scores(values: Mapping[str, Tensor], config: SafetyConfig) -> dict[str, bytes]:
    known = values["levels"] != IGNORED
    logits, risky = values["level"][known], (values["levels"][known] > 0).tolist()
    calibration = config.calibration
    # scores that assume another share of risky images than the tune rows have would lie beside the diagonal
    own = None if calibration is None else replace(calibration, prior=calibration.share)
    found = reliability((1 - level_probabilities(logits, own)[:, 0]).clamp(0, 1).tolist(), risky)
    bins = [(one.score, one.risky.value, one.risky.low, one.risky.high) for one in found.bins]
    kind = "not calibrated" if own is None else f"temperature {own.temperature:.3g}"
    scores = (1 - level_probabilities(logits, calibration)[:, 0]).clamp(0, 1).tolist()
    return {
        RELIABILITY: reliability_plot(bins, title=f"{len(risky)} tune images, {kind}"),
        SCORES: histogram_plot(
            reliability(scores, risky).histogram,
            title=f"{len(risky)} tune images",
            threshold=config.threshold,
        ),
    }
