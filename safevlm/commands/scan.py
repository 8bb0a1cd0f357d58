"""`safevlm scan`."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from safevlm.printable import indented, printable
from safevlm.types import ReadText

from .options import AUTO, MINI, read_policy

if TYPE_CHECKING:
    from safevlm.scan import Checkpoint, ScanCounts, ScanOptions, ScanSummary


def scan(
    source: str | None = None,
    *,
    out: str,
    model: str = MINI,
    backbone: str | None = None,
    policy: str | None = None,
    threshold: float | None = None,
    batch_size: int = 32,
    workers: int = 2,
    limit: int | None = None,
    sample_fraction: float | None = None,
    with_text: bool = False,
    read_text: ReadText = "never",
    max_error_rate: float | None = None,
    resume: bool = False,
    fresh: bool = False,
    engine: str = "local",
    ray_address: str | None = None,
    device: str = AUTO,
    decoding: Literal["whole", "reduced"] = "whole",
    max_pixels: int | None = None,
    follow_symlinks: bool = False,
    apply_policy: str | None = None,
) -> int:
    """Score every image of a source, and write Parquet rows, a summary and an HTML report.

    Args:
        source: folder, file or URI of the images; see docs/sources.md.
        out: folder for the results; an unfinished scan in it is continued, a finished one is left as it is.
        model: name of an embedded model, or folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone; by default the one that the model was trained with.
        policy: YAML file with thresholds and actions.
        threshold: scores from this on are unsafe, in place of the policy's thresholds.
        batch_size: number of images per forward pass of the vision tower.
        workers: number of threads that decode images; with --engine ray, number of models.
        limit: scan only the first images, up to this number.
        sample_fraction: scan only this fraction of the images, such as 0.01; every run chooses the same ones.
        with_text: score each image together with its caption or conversation.
        read_text: which images are read for writing, whose words are scored as a prompt: never, auto (where the head
            sees writing) or always; needs the extra ocr.
        max_error_rate: stop once more than this fraction of the rows are errors, such as 0.2.
        resume: fail unless `out` holds an earlier scan to continue.
        fresh: replace an earlier scan in `out`.
        engine: local, or ray for a cluster.
        ray_address: address of a running Ray cluster; by default one is started on this machine.
        device: torch device, such as cpu or cuda:0; auto is the GPU if there is one.
        decoding: whole, or reduced: large JPEGs are decoded at the scale that the tower needs, which is quicker and
            changes scores a little.
        max_pixels: largest width * height of an image that is decoded, 89,478,485 by default; larger ones are errors.
        follow_symlinks: follow symlinks that leave a folder of images; by default each is an error row, since what it
            names may be anything on this machine.
        apply_policy: YAML file of a policy, or a threshold such as 0.3, for the finished scan in `out`: its rows are
            decided again, and nothing is scored. Takes no source.

    Returns exit code 1 if a shard was not read to its end, if errors stopped the scan or if no image
    could be scored, and 130 after an interrupt.
    """
    from safevlm.data.image import MAX_PIXELS
    from safevlm.scan import Checkpoint, ScanOptions

    if apply_policy is not None:
        if source is not None or policy is not None or threshold is not None or fresh:
            raise ValueError(
                "--apply-policy goes with --out alone: it scans nothing, and has the policy itself"
            )
        return _apply(apply_policy, Path(out))
    if source is None:
        raise ValueError("scan needs a SOURCE: a folder, file or URI of images; see docs/sources.md")
    options = ScanOptions(
        batch_size, workers, limit, sample_fraction, with_text, max_error_rate, engine, ray_address, decoding,
        MAX_PIXELS if max_pixels is None else max_pixels,
    )  # fmt: skip
    _check_flags(Path(out), resume=resume, fresh=fresh)
    chosen = Checkpoint(model, backbone, read_policy(policy, model, threshold), device, read_text)
    return _scan(_with_links(source) if follow_symlinks else source, chosen, Path(out), options, fresh)


def _with_links(source: str) -> str:
    """The source with symlinks followed; raises ValueError where it is no folder of images."""
    kind, colon, _ = source.partition(":")
    if colon and kind == "folder":
        return f"{source}?follow_symlinks=yes"
    if not Path(source).is_dir():
        raise ValueError(f"--follow-symlinks is for folders of images, and {source} is none; omit the flag")
    return f"folder:{source}?follow_symlinks=yes"


def _apply(policy: str, folder: Path) -> int:
    """Decide a finished scan's rows again; returns the exit code."""
    from dataclasses import replace

    from safevlm import terminal
    from safevlm.policy import Policy
    from safevlm.scan import apply_policy, scanned_policy

    before = scanned_policy(folder)
    try:
        chosen = replace(before, threshold=float(policy), thresholds={})
    except ValueError as error:
        if not str(error).startswith("could not convert"):
            raise
        chosen = Policy.from_yaml(policy, before.taxonomy)
    summary = apply_policy(folder, chosen)
    terminal.show_summary(summary, folder, _report(folder, summary))
    return int(not summary.complete)


def _check_flags(folder: Path, *, resume: bool, fresh: bool) -> None:
    """Raise ValueError where `--resume` does not fit the folder or the other flag."""
    from safevlm.scan import LEDGER

    if resume and fresh:
        raise ValueError("--resume continues a scan, --fresh replaces it; give only one of them")
    if resume and not (folder / LEDGER).exists():
        raise ValueError(f"--resume: {folder} holds no scan; check the folder, or omit the flag")


def _scan(source: str, model: Checkpoint, folder: Path, options: ScanOptions, fresh: bool) -> int:
    """Scan with a progress bar, write the report, show the summary; returns the exit code."""
    from safevlm import terminal
    from safevlm.data import open_source
    from safevlm.progress import scan_progress
    from safevlm.scan import scan as run_scan
    from safevlm.scan.boundary import contained

    begun = False

    def on_progress(counts: ScanCounts) -> None:
        nonlocal begun
        begun = True
        advance(counts)

    try:
        with _terminable():
            with contained(source):
                opened = open_source(source)
            with scan_progress() as advance:
                summary = run_scan(opened, model, folder, options, fresh=fresh, on_progress=on_progress)
                report = _report(folder, summary)
    except KeyboardInterrupt:
        print(f"interrupted; {_kept(folder)}. {_go_on(folder, fresh)}", file=sys.stderr)
        return 130
    if begun:
        terminal.show_summary(summary, folder, report)
    else:
        terminal.show_finished(summary, report)
    return int(not summary.complete)


def _kept(folder: Path) -> str:
    """How much of a scan is in its folder, in words."""
    from safevlm.errors import DataError
    from safevlm.results.summary import read_summary

    try:
        found = read_summary(folder)
    except DataError:  # it was interrupted before it began
        return "nothing was scanned yet"
    of = f" of {found['total']:,}" if isinstance(found.get("total"), int) else ""
    return (
        f"{found['n']:,}{of} images are kept" if found["n"] else "no shard was finished, so nothing is kept"
    )


def _report(folder: Path, summary: ScanSummary) -> Path | None:
    from safevlm.errors import MissingExtraError
    from safevlm.scan import write_report

    try:
        return write_report(folder, summary) if summary.n else None
    except MissingExtraError as error:  # the rows are written; the same command writes the report later
        print(f"no report: {indented(str(error))}", file=sys.stderr)
        return None


def _go_on(folder: Path, fresh: bool) -> str:
    """A message with the command that continues the interrupted scan."""
    from safevlm.scan import LEDGER

    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    # flags may be abbreviated; --follow-symlinks is no beginning of --fresh
    parts = [part for part in given[:end] if not (part.startswith("--f") and "--fresh".startswith(part))]
    configured = fresh and parts == given[:end]
    if (folder / LEDGER).exists() and "--resume" not in parts:
        parts.append("--resume")
    how = "Take `fresh` out of the configuration and go on with" if configured else "Go on with"
    return f"{how}:\n  {printable(shlex.join(['safevlm', *parts, *given[end:]]))}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Context in which SIGTERM interrupts the scan as Ctrl-C does."""

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
