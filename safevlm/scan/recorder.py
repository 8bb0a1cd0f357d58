"""Scored batches -> part files and ledger, a shard at a time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safevlm.results.parts import PartFile
from safevlm.results.schema import COLUMNS, ERROR, ROWS, THUMBNAIL_COLUMNS, THUMBNAILS, ResultRow, part_name
from safevlm.scan.batch import Batch, Entry
from safevlm.scan.ledger import FORMAT, Ledger
from safevlm.scan.rows import result_row, thumbnail_row
from safevlm.scan.summary import Tally
from safevlm.types import Verdict

MAX_UNSAFE, MAX_UNDECIDED = 160, 40
"""Thumbnails per shard, 200 together: those of the highest scores, and the first undecided ones."""


class Recorder:
    """Writes what runners score.

    Batches come in the shards' order; those of one shard follow each other. The part files of a
    shard are renamed into place, then the ledger takes its entry and its scores in one
    transaction, so that a run that is killed leaves either the whole shard or nothing.

    Args:
        out: the scan's folder.
        ledger: of the folder, with its plan; its settings give the columns that are equal in every row.
    """

    def __init__(self, out: Path, ledger: Ledger) -> None:
        self.total = Tally()
        for state in ledger.shards():
            if state.status == "done":
                self.total.merge(state.counts)
        self._out, self._ledger = out, ledger
        settings = ledger.settings
        self._constants: ResultRow = {name: settings[name] for name in ("source", "model", "policy")}
        self._names = {p.number: p.shard.name for p in ledger.todo()}
        self._expected: set[bytes] = set()
        self._current: _OpenShard | None = None
        self._since = time.perf_counter()

    def mark_known(self, batch: Batch) -> Batch:
        """The batch with its entries known where equal keys were given out or scored before."""
        keys = [entry.key for entry in batch.entries if entry.key]
        known = self._ledger.known(keys) if keys else set()
        entries = []
        for entry in batch.entries:
            is_known = bool(entry.key) and (entry.key in known or entry.key in self._expected)
            if entry.key and not is_known:
                self._expected.add(entry.key)
            entries.append(replace(entry, known=is_known))
        return replace(batch, entries=tuple(entries))

    def add(self, batch: Batch) -> None:
        """Write a scored batch; the last one of a shard finishes it.

        Raises:
            DataError: the disk does not take it; finished shards are kept.
        """
        shard = self._current or self._open(batch.shard)
        rows = [result_row(entry) for entry in batch.entries]
        new = [(e.key, row) for e, row in zip(batch.entries, rows, strict=True) if e.key and not e.known]
        self._ledger.remember(shard.number, ((key, row | {"reason": _nameless(row)}) for key, row in new))
        self._expected.difference_update(key for key, _ in new)
        rows = [
            row | (self._recall(entry) if entry.known else {}) | self._constants | {"shard": shard.name}
            for entry, row in zip(batch.entries, rows, strict=True)
        ]
        shard.tally.duplicates += sum(entry.known for entry in batch.entries)
        shard.add(batch.entries, rows)
        self.total.add(rows)
        if batch.last:
            shard.tally.skipped += batch.skipped
            shard.tally.passed_over.update(batch.passed_over)
            self._finish(batch.error, batch.unfinished)

    def _recall(self, entry: Entry) -> ResultRow:
        """What the ledger knows of a known entry, as columns of its row."""
        found = self._ledger.recall(entry.key)
        if found["status"] == ERROR:
            found["reason"] = f"{entry.item.id}: {found['reason']}"
        return found

    def _open(self, number: int) -> _OpenShard:
        self._current = _OpenShard(self._out, number, self._names[number], self._constants["source"])
        return self._current

    def _finish(self, failure: str, unfinished: str | None) -> None:
        shard, now = self._current, time.perf_counter()
        if shard is None:
            return
        shard.commit()
        self._ledger.finish(
            shard.number,
            counts=shard.tally.to_dict(),
            seconds=now - self._since,
            failure=failure,
            unfinished=unfinished,
        )
        self.total.skipped += shard.tally.skipped
        self.total.passed_over.update(shard.tally.passed_over)
        self.total.duplicates += shard.tally.duplicates
        self._current, self._since = None, now

    def stop(self, reason: str) -> None:
        """Keep the shard that is being written as one that broke off; the next run reads it again."""
        if self._current is not None:
            self._finish(reason, self._current.last_id)

    def discard(self) -> None:
        """Drop the shard that is being written."""
        if self._current is not None:
            self._current.discard()
            self._current = None
        self._ledger.rollback()


def _nameless(row: ResultRow) -> str:
    """A row's reason without the image's id, since other images may have the same bytes."""
    return str(row["reason"]).removeprefix(f"{row['id']}: ")


class _OpenShard:
    """A shard whose rows are being written."""

    def __init__(self, out: Path, number: int, name: str, source: str) -> None:
        self.number, self.name, self.source, self.tally = number, name, source, Tally()
        self.last_id: str | None = None
        self.path = out / ROWS / part_name(number)
        self._thumbnails = out / THUMBNAILS / self.path.name
        self._rows = PartFile(self.path, COLUMNS, mark=FORMAT)
        self._best: dict[str, list[tuple[float, int, ResultRow]]] = {"unsafe": [], "undecided": []}

    def add(self, entries: Sequence[Entry], rows: Sequence[ResultRow]) -> None:
        self._rows.add(rows)
        self.tally.add(rows)
        self.last_id = rows[-1]["id"] if rows else self.last_id
        for entry, row in zip(entries, rows, strict=True):
            if not entry.thumbnail:
                continue
            unsafe = row["verdict"] == Verdict.UNSAFE.value
            heap, most = self._best[row["verdict"]], MAX_UNSAFE if unsafe else MAX_UNDECIDED
            thumbnail = thumbnail_row(entry) | {"source": self.source, "shard": self.name}
            # of equal scores the first image stays, whatever the order they come in
            candidate = (row["score"] if unsafe else 0.0, -row["index"], thumbnail)
            if len(heap) < most:
                heapq.heappush(heap, candidate)
            else:
                heapq.heappushpop(heap, candidate)

    def commit(self) -> None:
        """Put the files in their places, the rows last."""
        kept = sorted(
            (thumbnail for heap in self._best.values() for *_, thumbnail in heap), key=lambda t: t["index"]
        )
        try:
            if kept:
                file = PartFile(self._thumbnails, THUMBNAIL_COLUMNS, mark=FORMAT)
                try:
                    file.add(kept)
                    file.commit()
                finally:
                    file.discard()
            else:
                self._thumbnails.unlink(missing_ok=True)  # of an attempt that broke off
            self._rows.commit()
        finally:
            self._rows.discard()

    def discard(self) -> None:
        self._rows.discard()
