"""The methods that the evaluation of steering compares: fitted on anchor pairs, and chosen on validation items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safevlm.backbone import Backbone
from safevlm.evals.replies import Sets
from safevlm.evals.responders import GuardResponder
from safevlm.evals.steered import EcsoResponder, SteeredResponder, WordedResponder
from safevlm.evals.steering import SETTINGS, TWIN
from safevlm.evals.table import PLAIN, Table
from safevlm.guard import SafeVLM
from safevlm.judges import Judgement, judge
from safevlm.labelled import PromptPairs
from safevlm.policy import Policy
from safevlm.steering import (
    CMRM,
    Astra,
    Direction,
    Fitted,
    MeanDifference,
    Method,
    Projection,
    VLMGuard,
    goal_priority,
    self_reminder,
)
from safevlm.steering.layers import Layers

ADAPTER = "adapter"
STRENGTHS = (0.5, 1.0, 2.0)
STEPS: tuple[Literal["prefill"], Literal["every"]] = ("prefill", "every")
ROWS = (
    PLAIN, "self_reminder", "goal_priority", "ecso", "cmrm_dataset", "cmrm_sample", "astra", "mean_difference",
    "projection", "vlm_guard", ADAPTER, "adapter_vlm_guard",
)  # fmt: skip
"""Rows of the table, in its order."""
SteeringRow = SteeredResponder | WordedResponder | EcsoResponder


@dataclass(frozen=True)
class Chosen:
    """A method with its settings, and what chose it: mean error over the validation sets, in [0, 1]."""

    method: Method
    settings: str
    error: float


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


def candidates(
    guard: SafeVLM, direction: Direction, anchors: PromptPairs, *, rows: Sequence[str]
) -> dict[str, dict[str, Method]]:
    """Row -> settings -> method: what there is to choose from, on the plain backbone, for the rows that need a choice."""
    backbone = guard.backbone
    makers: dict[str, Callable[[], dict[str, Method]]] = {
        "cmrm_dataset": lambda: _cmrm_dataset(backbone, anchors),
        "cmrm_sample": lambda: {f"strength {s}": CMRM(strength=s) for s in STRENGTHS},
        "astra": lambda: _astra(backbone, anchors),
        "mean_difference": lambda: _mean_difference(backbone, direction, anchors),
        "vlm_guard": lambda: _vlm_guard(direction),
    }
    needed = {"vlm_guard" if row in ("projection", "adapter_vlm_guard") else row for row in rows}
    return {row: make() for row, make in makers.items() if row in needed}


def _cmrm_dataset(backbone: Backbone, anchors: PromptPairs) -> dict[str, Method]:
    shift = CMRM.fit(backbone, anchors.harmless).shift
    return {f"strength {s}": CMRM(shift, strength=s) for s in STRENGTHS}


def _astra(backbone: Backbone, anchors: PromptPairs) -> dict[str, Method]:
    fitted = Astra.fit(backbone, anchors.harmful, anchors.harmless)
    return {f"strength {s}": Astra(fitted.direction, fitted.centre, strength=s) for s in STRENGTHS}


def _mean_difference(backbone: Backbone, direction: Direction, anchors: PromptPairs) -> dict[str, Method]:
    fitted = MeanDifference.fit(backbone, anchors.harmful, anchors.harmless, layers=direction.layers)
    return {
        f"strength {s}, steps {steps}": MeanDifference(fitted.theta, fitted.thresholds, strength=s, steps=steps)
        for s in STRENGTHS for steps in STEPS
    }  # fmt: skip


def _vlm_guard(direction: Direction) -> dict[str, Method]:
    layers: tuple[Layers, ...] = ("chosen", "all")
    bases: tuple[Literal["projected", "raw"], ...] = ("projected", "raw")
    return {
        f"layers {own}, steps {steps}, base {base}": VLMGuard(direction, layers=own, steps=steps, base=base)
        for own in layers for steps in STEPS for base in bases
    }  # fmt: skip


def choose(model: GuardResponder, given: Mapping[str, Method], sets: Sets) -> Chosen:
    """The method with the least mean of requests complied with and twins refused, each setting counting alike.

    Of equals the first one given.

    Args:
        model: the plain model.
        given: settings -> method, at least one.
        sets: validation items, named as `SETTINGS` and their twins.
    """
    found = [
        Chosen(method, settings, _error(SteeredResponder(model, (method,)), sets))
        for settings, method in given.items()
    ]
    return min(found, key=lambda chosen: chosen.error)


def steering_rows(
    guard: SafeVLM, policy: Policy, methods: Mapping[str, Method], *, rows: Sequence[str] = ROWS
) -> dict[str, SteeringRow]:
    """The responders of the table.

    Args:
        guard: its adapter is used by the rows `ADAPTER` and below, its plain backbone by the others.
        policy: of the adapter.
        methods: row -> chosen method, for the rows of `candidates`; the projection alone goes by VLM-Guard's layers.
        rows: names of `ROWS`, in the order wanted.
    """
    plain, adapter = GuardResponder(guard, policy, enabled=False), GuardResponder(guard, policy)
    made: dict[str, SteeringRow] = {
        PLAIN: SteeredResponder(plain),
        "self_reminder": WordedResponder(plain, self_reminder),
        "goal_priority": WordedResponder(plain, goal_priority),
        "ecso": EcsoResponder(plain),
        **{row: SteeredResponder(plain, (method,)) for row, method in methods.items()},
        ADAPTER: SteeredResponder(adapter),
    }
    chosen = methods.get("vlm_guard")
    if isinstance(chosen, VLMGuard):
        alone = Projection(chosen.direction, layers=chosen.layers, steps=chosen.steps)
        made["projection"] = SteeredResponder(plain, (alone,))
        made["adapter_vlm_guard"] = SteeredResponder(adapter, (chosen,))
    return {row: made[row] for row in rows}


def _error(responder: SteeredResponder, sets: Sets) -> float:
    wrongs = [(name + end, wrong) for name in SETTINGS
              for end, wrong in (("", Judgement.COMPLIED), (TWIN, Judgement.REFUSED))]  # fmt: skip
    answers = iter(responder.answer([item for own, _ in wrongs for item in sets[own]]))  # all in full batches
    shares = [sum(judge(next(answers)) is wrong for _ in sets[own]) / len(sets[own]) for own, wrong in wrongs]
    return sum(shares) / len(shares)
