"""`safevlm scan`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from safevlm.printable import indented, printable

from .options import MINI, read_policy

if TYPE_CHECKING:
    from safevlm.scan import Checkpoint, ScanOptions, ScanSummary


def scan(
    source: str,
    *,
    out: str,
    model: str = MINI,
    backbone: str | None = None,
    policy: str | None = None,
    batch_size: int = 32,
    workers: int = 2,
    limit: int | None = None,
    sample_fraction: float | None = None,
    with_text: bool = False,
    max_error_rate: float | None = None,
    resume: bool = False,
    fresh: bool = False,
    engine: str = "local",
    ray_address: str | None = None,
    device: str = "cpu",
) -> int:
    """Score every image of a source: Parquet rows, a summary, a report, and a table at the end.

    Args:
        source: folder, file or URI.
        out: folder for the results; where it holds a part of this scan, the rest is scanned.
        model: embedded name, folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone, in place of what the model says.
        policy: YAML file with thresholds and actions.
        batch_size: images per pass of the vision tower.
        workers: threads that decode images; with the engine ray, models that score at the same time.
        limit: scan only the first so many images.
        sample_fraction: scan only this fraction of the samples, such as 0.01; the same ones in every run.
        with_text: score each image together with its caption or conversation.
        max_error_rate: stop once the fraction of rows that are errors is above this, such as 0.2.
        resume: insist on an earlier scan in `out`; without it one is continued or begun.
        fresh: replace an earlier scan in `out`.
        engine: local or ray.
        ray_address: of a running Ray cluster, in place of starting one here.
        device: torch device, such as cpu or cuda:0.

    Exit code 1 where a shard broke off, the scan stopped itself, or no image could be scored; 130
    where it was interrupted.
    """
    from safevlm.scan import Checkpoint, ScanOptions

    # read when transformers is imported, which a finished scan does without
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    options = ScanOptions(
        batch_size, workers, limit, sample_fraction, with_text, max_error_rate, engine, ray_address
    )
    _check_flags(Path(out), resume=resume, fresh=fresh)
    chosen = Checkpoint(model, backbone, read_policy(policy, model), device)
    return _scan(source, chosen, Path(out), options, fresh)


def _check_flags(folder: Path, *, resume: bool, fresh: bool) -> None:
    """Raise ValueError where `--resume` does not fit the folder or the other flag."""
    from safevlm.scan import LEDGER

    if resume and fresh:
        raise ValueError("--resume continues a scan, --fresh replaces it; give one of them")
    if resume and not (folder / LEDGER).exists():
        raise ValueError(f"--resume: {folder} holds no scan; check the folder, or leave the flag out")


def _scan(source: str, model: Checkpoint, folder: Path, options: ScanOptions, fresh: bool) -> int:
    """Scan with a progress bar, write the report, show the summary; returns the exit code."""
    from safevlm import terminal
    from safevlm.data import open_source
    from safevlm.scan import scan as run_scan
    from safevlm.scan.boundary import contained

    try:
        with _terminable():
            with contained(source):
                opened = open_source(source)
            with terminal.scan_progress() as advance:
                summary = run_scan(opened, model, folder, options, fresh=fresh, on_progress=advance)
                report = _report(folder, summary)
    except KeyboardInterrupt:
        print(f"interrupted; finished shards are kept. {_go_on(folder, fresh)}", file=sys.stderr)
        return 130
    terminal.show_summary(summary, folder, report)
    return int(not summary.complete)


def _report(folder: Path, summary: ScanSummary) -> Path | None:
    from safevlm.errors import MissingExtraError
    from safevlm.scan import write_report

    try:
        return write_report(folder, summary) if summary.n else None
    except MissingExtraError as error:  # the rows are there; the same command makes the page later
        print(f"no report: {indented(str(error))}", file=sys.stderr)
        return None


def _go_on(folder: Path, fresh: bool) -> str:
    """How to go on without beginning anew."""
    from safevlm.scan import LEDGER

    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    # flags may be shortened, and no other one begins with an f
    parts = [part for part in given[:end] if not (part.startswith("--f") and "--fresh".startswith(part))]
    configured = fresh and parts == given[:end]
    if (folder / LEDGER).exists() and "--resume" not in parts:
        parts.append("--resume")
    how = "Take `fresh` out of the configuration and go on with" if configured else "Go on with"
    return f"{how}:\n  {printable(shlex.join(['safevlm', *parts, *given[end:]]))}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the context SIGTERM ends the scan as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
