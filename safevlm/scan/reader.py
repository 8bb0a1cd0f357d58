"""A shard -> batches of encoded images, the same ones in every run."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from safevlm.data import Item, Source
from safevlm.errors import DataError
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.boundary import contained
from safevlm.scan.plan import PlannedShard, in_sample

logger = logging.getLogger(__name__)

RETRIES, PAUSE = 2, 0.2
"""How often a shard that breaks off is read again, and the seconds before the first time."""

MAX_BATCH_BYTES = 2**26
"""Encoded bytes after which a batch is closed early, 64 MiB."""


@dataclass(frozen=True)
class ShardReader:
    """Reads shards. Picklable; what it yields depends on the shard and these values alone.

    Args:
        source: where the shards are.
        batch_size: images per batch, fewer where they are large.
        sample_fraction: the fraction of samples that is taken, in (0, 1); None: all.
        with_text: whether the text belongs to an image's key.
    """

    source: Source
    batch_size: int
    sample_fraction: float | None = None
    with_text: bool = False

    def __call__(self, planned: PlannedShard) -> Iterator[Batch]:
        """The shard's batches and the one that ends it; what breaks a shard is in the latter."""
        name, number, skipped, held, error = planned.shard.name, 0, 0, 0, ""
        given, last, unfinished = 0, None, None
        entries: list[Entry] = []
        passed_over: Counter[str] = Counter()
        items = self._items(planned, passed_over)
        while True:
            try:
                index, item = next(items)
            except StopIteration:
                break
            except DataError as reason:
                unfinished = last
                error = "" if given == planned.take else str(reason) or type(reason).__name__
                break
            if index == planned.take:  # read to see whether the last sample has more images
                unfinished = last if item.id == last else None
                break
            given, last = index + 1, item.id
            if not in_sample(name, item.id, self.sample_fraction):
                skipped += 1
                continue
            entries.append(self._entry(index, item))
            held += len(item.data or b"")
            if len(entries) == self.batch_size or held >= MAX_BATCH_BYTES:
                yield Batch(planned.number, number, tuple(entries))
                entries, number, held = [], number + 1, 0
        if entries:
            yield Batch(planned.number, number, tuple(entries))
            number += 1
        yield Batch(
            planned.number,
            number,
            last=True,
            skipped=skipped,
            error=error,
            unfinished=unfinished,
            passed_over=dict(passed_over),
        )

    def _items(self, planned: PlannedShard, passed_over: Counter[str]) -> Iterator[tuple[int, Item]]:
        """Items with their positions, one more than is taken; a shard that breaks off is read again."""
        given, most = 0, None if planned.take is None else planned.take + 1
        for attempt in range(RETRIES + 1):
            passed_over.clear()  # reading begins anew
            try:
                with contained(planned.shard.name):
                    for item in islice(self.source.read(planned.shard, passed_over), given, most):
                        yield given, item
                        given += 1
            except DataError as error:
                if attempt == RETRIES:
                    raise
                logger.warning("%s broke off (%s); reading it again", planned.shard.name, error)
                time.sleep(PAUSE * 2**attempt)
            else:
                return

    def _entry(self, index: int, item: Item) -> Entry:
        if item.data is None:
            return Entry(index, item)
        digest = hashlib.sha256(item.data)
        key = digest.digest()
        if self.with_text and (item.text or item.text_error):
            words = item.text if not item.text_error else f"\0{item.text}\0{item.text_error}"
            key = hashlib.sha256(key + words.encode("utf-8", "surrogatepass")).digest()
        return Entry(index, item, digest.hexdigest(), key)
