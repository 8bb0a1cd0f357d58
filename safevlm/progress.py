"""Shows how far a scan is: a bar in a terminal, lines where the output goes to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from safevlm.scan import ScanCounts

RATE_AFTER = 1.0
"""Seconds before a rate means anything."""
LINE_EVERY = 15.0
"""Seconds between lines about a scan whose output is no terminal."""

COUNTS = "[red]{task.fields[unsafe]} unsafe[/] [yellow]{task.fields[undecided]} undecided[/] {task.fields[error]} errors"

console = Console()


class _Pace:
    """Images per second of this run; what an earlier one did is no part of it."""

    def __init__(self) -> None:
        self._begun: tuple[float, int] | None = None

    def __call__(self, counts: ScanCounts) -> float | None:
        """None as long as a rate means little."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, counts.done
        elapsed = now - self._begun[0]
        return (counts.done - self._begun[1]) / elapsed if elapsed >= RATE_AFTER else None


@contextmanager
def scan_progress() -> Iterator[Callable[[ScanCounts], None]]:
    """Show how far a scan is: a bar in a terminal, elsewhere a line every so often; yields the callback for `scan`."""
    if not console.is_terminal:
        yield _progress_lines()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn(COUNTS),
    )
    progress, pace = Progress(*columns, console=console), _Pace()
    task = progress.add_task("scan", total=None, rate="", unsafe=0, undecided=0, error=0)

    def advance(counts: ScanCounts) -> None:
        if not progress.live.is_started:  # of a finished scan there is nothing to show
            progress.start()
            progress.reset(task, completed=counts.done)
        rate = pace(counts)
        progress.update(
            task,
            total=counts.total,
            completed=counts.done,
            rate="" if rate is None else f"{rate:.0f} images/s",
            unsafe=counts.unsafe,
            undecided=counts.undecided,
            error=counts.error,
        )

    try:
        yield advance
    finally:
        progress.stop()


def _progress_lines() -> Callable[[ScanCounts], None]:
    """Prints a line at the first call, and one every `LINE_EVERY` seconds."""
    pace = _Pace()
    last: float | None = None

    def advance(counts: ScanCounts) -> None:
        nonlocal last
        rate, now = pace(counts), time.monotonic()
        if last is not None and now - last < LINE_EVERY:
            return
        last = now
        of = "" if counts.total is None else f" of {counts.total:,}"
        told = [f"{counts.done:,}{of} images"]
        if rate:
            left = None if counts.total is None else (counts.total - counts.done) / rate
            told += [f"{rate:.0f} images/s"] + (
                [] if left is None else [f"{timedelta(seconds=round(left))} left"]
            )
        told += [f"{counts.unsafe} unsafe", f"{counts.undecided} undecided", f"{counts.error} errors"]
        console.print(", ".join(told), highlight=False, soft_wrap=True)

    return advance
