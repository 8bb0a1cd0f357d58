"""A scan on this machine: one thread reads, some decode and preprocess, the calling thread scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from itertools import chain

from safevlm.scan.job import Job
from safevlm.scan.reader import Batch
from safevlm.scan.threads import Threads
from safevlm.scan.worker import Ready, Scored, make_thumbnails, prepare, score

Mark = Callable[[Batch], Batch]


def run_local(job: Job, mark: Mark) -> Generator[Scored, None, None]:
    """Every batch of the job, scored, in order.

    Reading goes on across shards, so that the scorer never waits for a border. At most
    `workers` + 2 batches are read ahead and as many prepared ahead: encoded they take up to
    64 MiB each, and a thread holds up to 192 MiB of pixels (or one picture) while it prepares one.
    Where the scan is interrupted, threads that are in the middle of a file are not waited for.

    Args:
        job: what to scan.
        mark: called in the calling thread on each batch, in order, before it is decoded.
    """
    scorer, workers, with_text = job.model.load(), job.options.workers, job.options.with_text
    stream = chain.from_iterable(map(job.reader, job.todo))
    ahead = workers + 2
    read: deque[Future[Batch | None]] = deque()
    ready: deque[Future[Ready]] = deque()
    drawn: deque[Future[Scored]] = deque()
    reading, decoding = Threads(1, "safevlm-read"), Threads(workers, "safevlm-decode")
    try:
        read.extend(reading.submit(next, stream, None) for _ in range(ahead))
        while read or ready:
            while read and len(ready) < ahead and (read[0].done() or not ready):
                batch = read.popleft().result()
                if batch is None:
                    read.clear()
                    break
                read.append(reading.submit(next, stream, None))
                ready.append(decoding.submit(prepare, mark(batch), scorer))
            if ready:
                scored = score(ready.popleft().result(), scorer, with_text=with_text)
                drawn.append(decoding.submit(make_thumbnails, scored))
            # those in front wait in the same queue as what is being prepared: no need to stop for them
            while drawn and (drawn[0].done() or len(drawn) > 2 * ahead):
                yield drawn.popleft().result()
        while drawn:
            yield drawn.popleft().result()
    finally:
        for waiting in (read, ready, drawn):
            for future in waiting:
                future.cancel()
        reading.close()
        decoding.close()
