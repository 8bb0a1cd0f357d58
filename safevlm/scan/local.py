"""A scan on this machine: one thread reads, some decode and preprocess, the calling thread scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from safevlm.data.image import MAX_PIXELS
from safevlm.scan.batch import Batch
from safevlm.scan.plan import PlannedShard
from safevlm.scan.reader import ShardReader
from safevlm.scan.threads import Threads
from safevlm.scan.worker import Prepared, make_thumbnails, prepare, score

if TYPE_CHECKING:
    from safevlm.scorer import RiskScorer


def run_local(
    shards: Sequence[PlannedShard],
    reader: ShardReader,
    scorer: RiskScorer,
    *,
    workers: int,
    mark_known: Callable[[Batch], Batch],
    reduced: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Generator[Batch, None, None]:
    """Every batch of the shards, scored, in order.

    Reading goes on across shards, so that the scorer never waits for a border. At most
    `workers` + 2 batches are read ahead and as many prepared ahead: encoded they take up to
    64 MiB each, and a thread holds up to 192 MiB of pixels (or one image) while it prepares one;
    of a batch up to 48 MiB of pixels are kept for thumbnails.
    Where the scan is interrupted, threads that are in the middle of a file are not waited for.

    Args:
        workers: threads that decode and preprocess.
        reduced: whether large JPEGs are decoded at the scale that the tower needs.
        max_pixels: the largest width * height that is decoded.
        mark_known: called in the calling thread on each batch, in order, before it is decoded; see `Entry.known`.
    """
    stream, scaled_side = chain.from_iterable(map(reader, shards)), scorer.scaled_side if reduced else None
    prepared = partial(prepare, max_pixels=max_pixels)
    ahead = workers + 2
    read: deque[Future[Batch | None]] = deque()
    ready: deque[Future[Prepared]] = deque()
    scored: deque[Future[Batch]] = deque()
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
                ready.append(decoding.submit(prepared, mark_known(batch), scorer.preprocess, scaled_side))
            if ready:
                found = score(ready.popleft().result(), scorer, with_text=reader.with_text)
                scored.append(decoding.submit(make_thumbnails, found))
            # thumbnails wait in the same queue as what is being prepared: no need to stop for them
            while scored and (scored[0].done() or len(scored) > 2 * ahead):
                yield scored.popleft().result()
        while scored:
            yield scored.popleft().result()
    finally:
        for waiting in (read, ready, scored):
            for future in waiting:
                future.cancel()
        reading.close()
        decoding.close()
