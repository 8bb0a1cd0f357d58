"""Results -> JSON and Markdown, with what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import torch

from safevlm.scan import versions

from .machine import cores, device_name, processor
from .results import Result
from .setup import Setup

HEADINGS = ("row", "variant", "batch", "median", "quartiles", "ratio", "target", "memory", "rounds")


def describe(setup: Setup) -> dict[str, str]:
    """What the table's head says: date, machine, models, precision, versions."""
    config = setup.config
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device_name(setup.device),
        "processor": f"{processor()}, {cores()} cores, {torch.get_num_threads()} torch threads",
        "models": f"{setup.shape} ({setup.sizes.source}), random weights, {str(setup.dtype).removeprefix('torch.')}",
        "safety modules": f"hidden_dim {config.hidden_dim}, depth {config.depth}, {config.num_tokens} tokens, "
        f"text_dim {setup.sizes.text['hidden_size']}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }


def to_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A list of `{row, device, value, unit, ratio, against, ...}`."""
    return [result.to_dict() for result in results]


def cells(result: Result) -> tuple[str, ...]:
    """A result under `HEADINGS`, in words."""
    spread = ratio = target = "-"
    if result.low is not None and result.high is not None:
        spread = f"{number(result.low)} to {number(result.high)}"
    if result.ratio is not None:
        ratio = f"{result.ratio:.3g} x {result.ratio_of}"
    elif result.value is not None and result.against is None:
        ratio = "1"
    if result.target is not None:
        target = result.target + {True: " met", False: " missed", None: ""}[result.met]
    return (
        f"{result.row}: {result.quantity}",
        result.variant,
        "-" if result.batch is None else str(result.batch),
        "-" if result.value is None else f"{number(result.value)} {result.unit}",
        spread,
        ratio,
        target,
        "-" if result.memory_mb is None else f"{result.memory_mb:,.0f} MB",
        str(result.rounds),
    )


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def notes(results: Sequence[Result]) -> dict[str, list[str]]:
    """Note -> whose it is, each once, in order."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        if result.note:
            whose = (
                result.row
                if result.value is not None
                else f"{result.row}, {result.variant}"
                + ("" if result.batch is None else f", batch {result.batch}")
            )
            found.setdefault(result.note, {})[whose] = None
    return {note: list(whose) for note, whose in found.items()}


def to_markdown(results: Sequence[Result], about: Mapping[str, str]) -> str:
    """The table under what `about` says of the run, and the notes below it."""
    lines = [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", f"| {' | '.join(HEADINGS)} |", f"|{'---|' * 2}{'--:|' * (len(HEADINGS) - 2)}"]
    lines += [f"| {' | '.join(cells(result))} |" for result in results]
    lines += ["", *(f"- {'; '.join(whose)}: {note}" for note, whose in notes(results).items())]
    lines += ["", READING]
    return "\n".join(lines) + "\n"


READING = (
    "Variants of one cell are measured in rounds, each once per round in random order, warm; medians and "
    "quartiles are over the rounds, a ratio is the median of the rounds' own ratios to the line marked 1. "
    "Ratios of time are better small, of rate better large. Memory: weights, and the most that one call took "
    "above what was in use before it (on a CPU resident pages of the process)."
)
