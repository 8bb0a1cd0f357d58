"""A whole scan: plan, run, record, sum up."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from safevlm.data import Source
from safevlm.results.schema import ERROR
from safevlm.scan.batch import Batch
from safevlm.scan.boundary import contained
from safevlm.scan.ledger import DONE, LEDGER, Ledger
from safevlm.scan.local import run_local
from safevlm.scan.lock import locked
from safevlm.scan.model import Checkpoint, model_sha256, sees_one_view
from safevlm.scan.options import ScanOptions
from safevlm.scan.output import check_parts, drop_parts, drop_unfinished, prepare, refuse_inside
from safevlm.scan.plan import Plan, PlannedShard, plan_shards, settings
from safevlm.scan.reader import ShardReader
from safevlm.scan.recorder import Recorder
from safevlm.scan.replan import replan
from safevlm.scan.summary import ScanCounts, ScanSummary, Tally, images_of, summarise

if TYPE_CHECKING:
    from safevlm.scorer import RiskScorer

MIN_ROWS_FOR_ERROR_RATE = 100
"""Rows before `max_error_rate` can stop a scan: the rate of a few rows says little."""

OnProgress = Callable[[ScanCounts], None]


def scan(
    source: Source,
    model: RiskScorer | Checkpoint | str | Path,
    out: str | Path,
    options: ScanOptions | None = None,
    *,
    fresh: bool = False,
    on_progress: OnProgress | None = None,
) -> ScanSummary:
    """Score every image of a source and write one row each; where `out` holds a part of this scan, the rest.

    Rows go to `out/rows/part-<shard>.parquet` (`COLUMNS`), thumbnails of flagged ones to
    `out/thumbnails/`, the summary to `out/summary.json`. An image that cannot be read is a row with
    status error, one that the scorer cannot score a row with status undecided. A shard that breaks
    off is read again twice, then its rows so far are kept, the summary has the reason, and the next
    run tries it again. The model is loaded only where something is left to score.

    A run that ends at any moment, however, leaves whole shards: the same call continues after
    them, and ends with the same rows as a run that was not interrupted.

    Args:
        source: what to scan; never written to.
        model: what scores: a scorer in memory (not on Ray), the name, folder or hub id of a checkpoint, or a
            `Checkpoint` with a policy or device of its own.
        out: a folder for this scan alone.
        options: how it runs.
        fresh: replace an earlier scan in `out`; only files that a scan wrote are removed.
        on_progress: called after each batch, in the calling thread.

    Raises:
        DataError: nothing to scan; `out` lies in the source, holds the scan of something else (the difference is named),
            files that no scan wrote, is being written to or read by another process, or cannot be written.
            Finished shards are kept.
        MissingExtraError: a package is not installed.
        ValueError: a scorer in memory and the engine ray.
    """
    out, options = Path(out), options or ScanOptions()
    if isinstance(model, str | Path):
        model = Checkpoint(str(model))
    if options.engine == "ray" and not isinstance(model, Checkpoint):
        raise ValueError(
            "a scorer in memory cannot be sent to other machines; scan on Ray with the name of a checkpoint, or with "
            "Checkpoint(...)"
        )
    refuse_inside(source.uri, out)
    with locked(out):  # before anything in there is looked at, removed or written
        return _scan(source, model, out, options, fresh, on_progress)


def _scan(
    source: Source,
    model: RiskScorer | Checkpoint,
    out: Path,
    options: ScanOptions,
    fresh: bool,
    on_progress: OnProgress | None,
) -> ScanSummary:
    """A scan into a folder that nobody else writes to."""
    with contained(source.uri):
        shards = source.shards()
    chosen = settings(
        source.uri,
        model_sha256(model),
        model.policy.sha256,
        options,
        read_text=model.read_text,
        untrained=model.config.untrained,
    )
    prepare(out, fresh=fresh)
    with closing(Ledger(out / LEDGER)) as ledger:
        if ledger.begun:
            ledger.check(chosen)
            replan(ledger, source, shards, options.limit)
            check_parts(out, (s.planned.number for s in ledger.shards() if s.status == DONE))
        else:
            ledger.clear()
            plan = Plan(chosen, plan_shards(source, shards, options.limit))
            ledger.begin(plan, model=model.name, policy=model.policy, one_view=sees_one_view(model))
        drop_parts(out, keep=[s.planned.number for s in ledger.shards() if s.status])
        reader = ShardReader(source, options.batch_size, options.sample_fraction, options.with_text)
        stopped = ""
        try:
            if todo := ledger.todo():
                stopped = _run(todo, reader, model, out, options, ledger, on_progress)
        finally:
            summary = summarise(ledger, stopped=stopped)
            summary.write(out)
    return summary


def _run(
    shards: Sequence[PlannedShard],
    reader: ShardReader,
    model: RiskScorer | Checkpoint,
    out: Path,
    options: ScanOptions,
    ledger: Ledger,
    on_progress: OnProgress | None,
) -> str:
    """Scan what is left; returns why the scan stopped itself, or nothing."""
    ledger.forget_failed()
    recorder = Recorder(out, ledger)
    images = [images_of(state) for state in ledger.shards() if state.planned.take != 0]
    total = None if None in images else sum(count or 0 for count in images)
    if on_progress is not None:
        on_progress(recorder.total.counts(total))
    try:
        with closing(_scored(shards, reader, model, options, recorder)) as batches:
            for batch in batches:
                recorder.add(batch)
                if on_progress is not None:
                    on_progress(recorder.total.counts(total))
                if reason := _too_many_errors(recorder.total, options.max_error_rate):
                    recorder.stop(reason)
                    return reason
    finally:
        recorder.discard()
        drop_unfinished(out)
    return ""


def _scored(
    shards: Sequence[PlannedShard],
    reader: ShardReader,
    model: RiskScorer | Checkpoint,
    options: ScanOptions,
    recorder: Recorder,
) -> Generator[Batch, None, None]:
    """The shards' batches, scored by the engine that the options name."""
    if isinstance(model, Checkpoint) and options.engine == "ray":
        from safevlm.scan.cluster import run_on_ray

        return run_on_ray(shards, reader, model, options)
    return run_local(
        shards,
        reader,
        model.load() if isinstance(model, Checkpoint) else model,
        workers=options.workers,
        mark_known=recorder.mark_known,
        reduced=options.decoding == "reduced",
        max_pixels=options.max_pixels,
    )


def _too_many_errors(tally: Tally, most: float | None) -> str:
    errors = tally.columns["status"][ERROR]
    if most is None or tally.n < MIN_ROWS_FOR_ERROR_RATE or errors <= most * tally.n:
        return ""
    return (
        f"{errors} of {tally.n} rows are errors, a rate above {most:g}; "
        "see the column reason, then run again with a higher max_error_rate"
    )
