"""A scan on this machine: threads decode ahead, the calling thread scores and writes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safevlm.data.parts import PartWriter
from safevlm.policy import Policy
from safevlm.scan.output import COLUMNS, FORMAT, ScanSummary, Tally, prepare, versions
from safevlm.scan.worker import ERROR, OK, UNDECIDED, ScanWorker, Scorer
from safevlm.types import Sample, Verdict

ROWS_PER_PART = 4096
MAX_HELD_PIXELS = 2**27
"""Decoded pixels that may wait for the scorer: 2^27 * 3 bytes = 384 MiB."""


class Source(Protocol):
    """Samples by number; `source[i]` is called from several threads and does not raise on bad data."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class ScanCounts:
    """How far a scan is: `done` = `ok` + `undecided` + `error` of `total`; `unsafe` of the ok ones."""

    total: int
    done: int
    ok: int
    undecided: int
    error: int
    unsafe: int


def scan(
    source: Source,
    scorer: Scorer,
    out: str | Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    limit: int | None = None,
    on_progress: Callable[[ScanCounts], None] | None = None,
    fresh: bool = False,
) -> ScanSummary:
    """Score every sample and write one row each, in the source's order.

    Rows go to `out/rows/part-*.parquet` (`COLUMNS`; 4096 a part), the summary to
    `out/summary.json`. A picture that cannot be read is a row with status error, one that the
    scorer cannot score a row with status undecided. Memory does not grow with the source. Where the
    scan is interrupted, or stopped by any error, the rows scored so far and a summary with
    `interrupted` true are written before the exception goes on.

    Args:
        source: samples by number, a `FolderSource` for example.
        scorer: scores pictures; its `name` (a str) and `policy` are noted where it has them.
        out: a folder for this scan alone.
        batch_size: pictures per call of the scorer, fewer where they are large.
        workers: threads that decode.
        limit: scan only the first so many samples.
        on_progress: called after each batch, in the calling thread.
        fresh: replace an earlier scan in `out`; only files that a scan wrote are removed.

    Raises:
        DataError: `out` holds an earlier scan or something else, or cannot be written.
        MissingExtraError: pyarrow is not installed.
        ValueError: a number below 1, or an empty source.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"scan: {name} is {value}; it must be at least 1")
    total = len(source) if limit is None else min(limit, len(source))
    if total == 0:
        raise ValueError("scan: the source is empty; there is nothing to scan")
    out, worker, tally = Path(out), ScanWorker(scorer), Tally()
    writer = PartWriter(prepare(out, fresh=fresh), COLUMNS, rows_per_part=ROWS_PER_PART, mark=FORMAT)
    start = time.perf_counter()
    samples = _decoded(source, total, workers=workers, ahead=2 * batch_size + workers)
    try:
        with closing(samples):
            for batch in _batches(samples, batch_size):
                rows = worker(batch)
                writer.add(rows)
                tally.add(rows)
                if on_progress is not None:
                    on_progress(_counts(tally, total))
    finally:
        writer.close()
        summary = _summary(tally, total, time.perf_counter() - start, scorer)
        summary.write(out)
    return summary


def _decoded(source: Source, total: int, *, workers: int, ahead: int) -> Generator[Sample, None, None]:
    """Samples in order, decoded by threads, at most `ahead` of them or MAX_HELD_PIXELS waiting."""
    pending: deque[Future[Sample]] = deque()
    started = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="safevlm-decode") as pool:
        try:
            while pending or started < total:
                held = sum(_pixels(future.result()) for future in pending if future.done())
                while started < total and len(pending) < ahead and (held < MAX_HELD_PIXELS or not pending):
                    pending.append(pool.submit(source.__getitem__, started))
                    started += 1
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _pixels(sample: Sample) -> int:
    return sample.image.width * sample.image.height if sample.image else 0


def _batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    """Lists of at most `size` samples, closed early when they hold MAX_HELD_PIXELS."""
    batch: list[Sample] = []
    held = 0
    for sample in samples:
        batch.append(sample)
        held += _pixels(sample)
        if len(batch) == size or held >= MAX_HELD_PIXELS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _counts(tally: Tally, total: int) -> ScanCounts:
    status, verdict = tally.columns["status"], tally.columns["verdict"]
    return ScanCounts(
        total, tally.n, status[OK], status[UNDECIDED], status[ERROR], verdict[Verdict.UNSAFE.value]
    )


def _summary(tally: Tally, total: int, seconds: float, scorer: Scorer) -> ScanSummary:
    name, policy = getattr(scorer, "name", None), getattr(scorer, "policy", None)
    return ScanSummary(
        n=tally.n,
        total=total,
        statuses=dict(tally.columns["status"]),
        verdicts=dict(tally.columns["verdict"]),
        levels=dict(tally.columns["level"]),
        categories=dict(tally.columns["category"]),
        seconds=seconds,
        images_per_second=tally.n / seconds,
        model=name if isinstance(name, str) else None,
        policy_sha256=policy.sha256 if isinstance(policy, Policy) else None,
        versions=versions(),
        interrupted=tally.n < total,
    )
