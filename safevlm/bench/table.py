"""Results as JSON and as Markdown, with the machine and the versions."""

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
    """Head of the table: date, machine, models, precision and versions."""
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
    """Results as a list of `{row, device, value, unit, ratio, against, ...}`."""
    return [result.to_dict() for result in results]


def cells(result: Result) -> tuple[str, ...]:
    """Texts of a result's cells, one for each of `HEADINGS`."""
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
    """Format a number with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def notes(results: Sequence[Result]) -> dict[str, list[str]]:
    """Note -> rows and variants that have it, in order."""
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
    """The table in Markdown, below the head `about` and above the notes."""
    lines = [f"- {name}: {value}" for name, value in about.items()]
    lines += ["", f"| {' | '.join(HEADINGS)} |", f"|{'---|' * 2}{'--:|' * (len(HEADINGS) - 2)}"]
    lines += [f"| {' | '.join(cells(result))} |" for result in results]
    lines += ["", *(f"- {'; '.join(whose)}: {note}" for note, whose in notes(results).items())]
    lines += ["", READING]
    return "\n".join(lines) + "\n"


READING = (
    "Variants of one cell are measured in rounds after a warm-up, each once per round in random order. Medians "
    "and quartiles are over the rounds; a ratio is the median of the rounds' ratios to the line marked 1. A "
    "smaller ratio of times is better, and a larger ratio of rates. Memory: weights, and the peak of one call "
    "above the memory in use before it (on a CPU resident pages of the process)."
)
