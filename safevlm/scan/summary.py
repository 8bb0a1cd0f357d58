"""A scan in numbers."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.files import replacing
from safevlm.results.schema import ERROR, OK, SUMMARY, UNDECIDED, ResultRow
from safevlm.scan.ledger import DONE, FAILED, FORMAT, Ledger, ShardState
from safevlm.types import Verdict

COUNTED = ("status", "verdict", "level", "category")
MAX_FAILURES = 100
"""Failed shards that a summary names; the ledger has all."""


@dataclass(frozen=True)
class ScanCounts:
    """How far a scan is: `done` = `ok` + `undecided` + `error` of `total` (None: not known); `unsafe` of the ok ones."""

    total: int | None
    done: int
    ok: int
    undecided: int
    error: int
    unsafe: int


@dataclass
class Tally:
    """Counts of rows.

    `skipped` images have none, `duplicates` had equal bytes before them, `passed_over` counts by reason what
    the source read and gave no image for.
    """

    n: int = 0
    skipped: int = 0
    duplicates: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    columns: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})

    def add(self, rows: Iterable[ResultRow]) -> None:
        """Count rows in."""
        for row in rows:
            self.n += 1
            for name, counts in self.columns.items():
                if row[name] is not None:
                    counts[row[name]] += 1

    def merge(self, counts: Mapping[str, Any]) -> None:
        """Count in what `to_dict` gave; an empty mapping counts nothing."""
        self.n += counts.get("n", 0)
        self.skipped += counts.get("skipped", 0)
        self.duplicates += counts.get("duplicates", 0)
        self.passed_over.update(counts.get("passed_over", {}))
        for name, column in self.columns.items():
            column.update(counts.get(name, {}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the ledger keeps them."""
        own: dict[str, Any] = {"n": self.n, "skipped": self.skipped, "duplicates": self.duplicates}
        own["passed_over"] = dict(self.passed_over)
        return own | {name: dict(counts) for name, counts in self.columns.items()}

    def counts(self, total: int | None) -> ScanCounts:
        """For a progress bar."""
        status, unsafe = self.columns["status"], self.columns["verdict"][Verdict.UNSAFE.value]
        return ScanCounts(total, self.n, status[OK], status[UNDECIDED], status[ERROR], unsafe)


@dataclass(frozen=True)
class ScanSummary:
    """A scan in numbers; they are those of the rows.

    Args:
        source: its URI.
        n: rows written.
        total: rows that a complete scan writes, skipped images counted; None where only reading tells.
        statuses, verdicts: value -> rows.
        levels, categories: value -> rows; rows without a score are in none.
        shards: done, failed, pending -> how many.
        failures: name -> reason of shards that broke off; of more than 100 the first.
        skipped: images that the sample left out; they have no rows.
        duplicates: rows whose score is that of equal bytes before them.
        passed_over: reason -> how many rows or members of the source gave no image, so that they have no rows.
        seconds: time that the scan ran, over all runs; images_per_second = n / seconds.
        model: the model's name.
        settings: what the rows depend on: source, limit, sample, text, whether the modules are
            trained, and the hashes of model and policy.
        versions: package -> version.
        interrupted: whether shards are left to be scanned.
        stopped: why the scan stopped itself; empty where it did not.
        untrained: whether the model's modules were never trained, so that its scores and verdicts mean nothing.
    """

    source: str
    n: int
    total: int | None
    statuses: Mapping[str, int]
    verdicts: Mapping[str, int]
    levels: Mapping[str, int]
    categories: Mapping[str, int]
    shards: Mapping[str, int]
    failures: Mapping[str, str]
    skipped: int
    duplicates: int
    passed_over: Mapping[str, int]
    seconds: float
    images_per_second: float
    model: str
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    interrupted: bool
    stopped: str = ""
    untrained: bool = False

    @property
    def complete(self) -> bool:
        """Whether every shard was read to its end and something was scored."""
        whole = not (self.interrupted or self.stopped or self.shards[FAILED])
        return whole and self.statuses.get(OK, 0) > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in summary.json."""
        return {"format": FORMAT, **asdict(self)}

    def write(self, out: Path) -> None:
        """Write `out/summary.json`, whole or not at all; raises DataError where the disk does not take it."""
        try:
            with replacing(out / SUMMARY) as replacement:
                replacement.file.write((json.dumps(self.to_dict(), indent=2) + "\n").encode())
        except OSError as error:
            raise DataError(f"{out / SUMMARY}: cannot be written ({error}); free space") from error


def summarise(ledger: Ledger, *, stopped: str = "") -> ScanSummary:
    """The summary of what a ledger holds."""
    settings = ledger.settings
    tally, seconds, shards = Tally(), 0.0, Counter({DONE: 0, FAILED: 0, "pending": 0})
    failures: dict[str, str] = {}
    total: int | None = 0
    for state in ledger.shards():
        if state.planned.take == 0:
            continue
        tally.merge(state.counts)
        seconds += state.seconds
        shards[state.status or "pending"] += 1
        if state.status == FAILED and len(failures) < MAX_FAILURES:
            failures[state.planned.shard.name] = state.reason
        images = images_of(state)
        total = None if total is None or images is None else total + images
    return ScanSummary(
        source=settings["source"],
        n=tally.n,
        total=total,
        statuses=dict(tally.columns["status"]),
        verdicts=dict(tally.columns["verdict"]),
        levels=dict(tally.columns["level"]),
        categories=dict(tally.columns["category"]),
        shards=dict(shards),
        failures=failures,
        skipped=tally.skipped,
        duplicates=tally.duplicates,
        passed_over=dict(tally.passed_over),
        seconds=seconds,
        images_per_second=tally.n / seconds if seconds else 0.0,
        model=ledger.model,
        settings=settings,
        versions=versions(),
        interrupted=bool(shards["pending"]),
        stopped=stopped,
        untrained=settings["modules"] == "untrained",
    )


def images_of(state: ShardState) -> int | None:
    """How many images a shard has or will have, skipped ones counted; None where only reading tells."""
    if state.status == DONE:
        return int(state.counts["n"]) + int(state.counts["skipped"])
    return state.planned.shard.images if state.planned.take is None else state.planned.take


def versions() -> dict[str, str]:
    """Python and the packages that a scan's numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in ("safevlm", "torch", "transformers", "timm", "pillow", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
