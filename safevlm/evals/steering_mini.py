"""`safevlm eval steering`: the embedded model under every method, on requests and their harmless twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safevlm.evals.mini import hinting
from safevlm.evals.replies import OnProgress, collect
from safevlm.evals.responders import GuardResponder
from safevlm.evals.steered import EcsoResponder
from safevlm.evals.steering import ORDINARY, answer_losses, tabulate_steering, time_ratios
from safevlm.evals.steering_rows import ROWS, Chosen, candidates, choose, steering_rows
from safevlm.evals.table import PLAIN, Table
from safevlm.steering import Fitted, fit_direction

ANCHORS = 400
"""Pairs that directions are fitted on, at most."""


@dataclass(frozen=True)
class SteeringEvaluation:
    """The table, the fit of the direction, and the settings that were chosen, by row."""

    table: Table
    fitted: Fitted
    chosen: Mapping[str, Chosen]

    def to_dict(self) -> dict[str, Any]:
        """`{table: {row: {column: estimate}}, chosen: {row: {settings, error}}, fit: {...}}`, JSON-ready."""
        return {
            "table": {
                row: {column: None if cell is None else cell.to_dict() for column, cell in cells.items()}
                for row, cells in self.table.items()
            },
            "chosen": {row: {"settings": c.settings, "error": c.error} for row, c in self.chosen.items()},
            "fit": {
                "pairs": self.fitted.pairs,
                "held_out": self.fitted.held_out,
                "separation": dict(self.fitted.direction.separation),
                "with_image": dict(self.fitted.with_image),
            },
        }


def evaluate_steering(
    *,
    n: int,
    n_tune: int,
    seed: int,
    prompts: str | None = None,
    rows: Sequence[str] = (),
    model: str | Path = "safevlm-mini",
    split: str = "test",
    on_progress: OnProgress | None = None,
) -> SteeringEvaluation:
    """Fit directions on training pairs, choose settings on tune items, and compare the methods on `split`, once.

    Args:
        n: requests of each setting, and as many twins.
        n_tune: the same, of the items that settings are chosen with.
        seed: of all items and anchors.
        prompts: folder that holds prompts/prompts.jsonl; without it all requests are made up.
        rows: names of `ROWS`; empty: all. `PLAIN` is always measured, since times are ratios to it.
        model: name or folder of the safety modules.
        split: "test", or "tune" while a method is being developed.
        on_progress: called with a name, items done and items in all, before and after every set.

    Raises:
        ValueError: an unknown row, or n or n_tune below 1.
    """
    from safevlm.training.mini.evaluation import evaluation_sets
    from safevlm.training.mini.twins import anchor_pairs, twin_sets

    if unknown := sorted(set(rows) - set(ROWS)):
        raise ValueError(f"unknown rows {unknown}; there are {', '.join(ROWS)}")
    if n < 1 or n_tune < 1:
        raise ValueError(f"n is {n} and n_tune {n_tune}; give at least 1 of each")
    folder = None if prompts is None else Path(prompts)
    guard, policy = hinting(model)
    anchors = anchor_pairs("train", ANCHORS, seed, folder)
    tune = twin_sets("tune", n_tune, seed)
    with guard.disabled():
        fitted = fit_direction(guard.backbone, anchors, seed=seed)
        given = candidates(guard, fitted.direction, anchors, rows=rows or ROWS)
        plain = GuardResponder(guard, policy, enabled=False)
        chosen = {row: choose(plain, methods, tune) for row, methods in given.items()}
    wanted = dict.fromkeys((PLAIN, *(rows or ROWS)))
    responders = steering_rows(
        guard, policy, {row: found.method for row, found in chosen.items()}, rows=list(wanted)
    )
    sets = {**twin_sets(split, n, seed, folder), **evaluation_sets(split, n, seed, names=(ORDINARY,))}
    replies = collect(responders, sets, on_progress=on_progress)
    losses = {
        row: {
            name: answer_losses(guard, found.answers, sets[name])
            for name, found in of_row.items()
            if name != ORDINARY
        }
        for row, of_row in replies.items()
    }
    timed = {row: own for row, own in responders.items() if not isinstance(own, EcsoResponder)}
    times = time_ratios(timed, sets["white"][0])
    return SteeringEvaluation(tabulate_steering(replies, sets, losses=losses, times=times), fitted, chosen)
