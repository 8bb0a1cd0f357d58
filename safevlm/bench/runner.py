"""The rows, run one after the other; what cannot run becomes a line that says why."""

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
"""Name -> measures the row."""


def parse_rows(text: str) -> tuple[str, ...]:
    """`"score,head"` -> the names, each once.

    Raises:
        ValueError: a name that is no row, or none at all; lists the rows.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        what = f"no row {unknown[0]!r}" if unknown else "no rows were named"
        raise ValueError(f"{what}; there are {','.join(ROWS)}")
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
        rows: names of `ROWS`.
        out: Markdown file for the table; written after each row, so that a run that is stopped leaves what it has.
        on_row: called with each row's name before it is measured.

    Raises:
        ValueError: the folder of `out` does not exist.
    """
    if out is not None and not Path(out).parent.is_dir():
        raise ValueError(f"{out}: there is no folder {Path(out).parent}; make it first")
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
