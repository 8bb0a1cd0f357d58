"""Runs the rows of the benchmark one after the other; a row that cannot run gives a result with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safevlm.errors import MissingExtraError

from .generate import generate
from .guard import guard
from .head import head
from .machine import device_name
from .memory import fitting
from .pipeline import pipeline
from .results import Result
from .scan import scan
from .score import score
from .setup import Setup
from .table import describe, to_markdown

ROWS: dict[str, Callable[[Setup], list[Result]]] = {
    "score": score,
    "pipeline": pipeline,
    "generate": generate,
    "head": head,
    "guard": guard,
    "scan": scan,
}
"""Name -> function that measures the row."""


def parse_rows(text: str) -> tuple[str, ...]:
    """Parse names of rows separated by commas, such as "score,head"; duplicates are removed.

    Raises:
        ValueError: a name is unknown, or there is none.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        what = f"unknown row {unknown[0]!r}" if unknown else "no row was given"
        raise ValueError(f"{what}; choose from {','.join(ROWS)}")
    return names


def run(
    setup: Setup,
    rows: Sequence[str],
    *,
    out: str | Path | None = None,
    on_row: Callable[[str], None] | None = None,
) -> list[Result]:
    """Measure the rows.

    Args:
        setup: shape, device and amounts.
        rows: names in `ROWS`.
        out: Markdown file for the table, rewritten after each row, so that it is of use after an interrupt.
        on_row: called with the name of each row before it is measured.

    Raises:
        ValueError: the folder of `out` does not exist.
    """
    if out is not None and not Path(out).parent.is_dir():
        raise ValueError(f"{out}: the folder {Path(out).parent} does not exist; create it first")
    found: list[Result] = []
    for name in rows:
        if on_row is not None:
            on_row(name)
        with fitting(setup.device) as problem:
            try:
                found += ROWS[name](setup)
            except MissingExtraError as error:
                found.append(_skipped(setup, name, str(error)))
        found += [_skipped(setup, name, reason) for reason in problem]
        if out is not None:
            Path(out).write_text(to_markdown(found, describe(setup)), "utf-8")
    return found


def _skipped(setup: Setup, row: str, reason: str) -> Result:
    return Result(row, "the row", "all", None, device_name(setup.device), None, "images/s", note=reason)
