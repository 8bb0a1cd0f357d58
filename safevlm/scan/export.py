"""The rows of a scan -> a list of kept or flagged images or samples, or a view that data loaders filter by."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from safevlm.errors import DataError
from safevlm.files import Replacement
from safevlm.results.parts import Column, PartFile, iterate_parts
from safevlm.results.schema import ERROR, OK, ROWS, THUMBNAILS, ResultRow, part_name
from safevlm.scan.cells import csv_line, path_of
from safevlm.scan.ledger import DONE, opened
from safevlm.scan.lock import locked
from safevlm.scan.output import FILES
from safevlm.scan.view import VIEW_COLUMNS, VIEW_FORMAT
from safevlm.types import Verdict

logger = logging.getLogger(__name__)

KINDS = ("safe", "unsafe", "undecided", "error")
EXPORT_FORMAT = "safevlm-export/2"
COLUMNS = (
    Column("source", "string", nullable=False),
    Column("id", "string", nullable=False),
    Column("shard", "string", nullable=False),
    Column("index", "int32", nullable=False),
    Column("number", "int32", nullable=False),
    Column("kind", "string", nullable=False),  # safe, unsafe, undecided, error: what the row was kept as
    Column("score", "float32"),
    Column("level", "string"),
    Column("category", "string"),
)
PATH = Column("path", "string", nullable=False)
"""Of images that are files of a folder."""
_READ = ("source", "id", "shard", "index", "number", "score", "level", "category", "verdict", "status")


class Sample(NamedTuple):
    """A sample of a shard: whether all of its images were scanned and are kept, and whether one is."""

    source: str
    shard: str
    id: str
    whole: bool
    partly: bool


def export(
    folder: str | Path,
    out: str | Path,
    *,
    keep: Sequence[str] = ("safe",),
    threshold: float | None = None,
    form: str = "parquet",
    absolute: bool = False,
) -> int:
    """Write which images or samples of a scan are of some kinds; the source stays as it is.

    What the scan has no row of is never kept; a warning says how many shards are not finished.

    Args:
        folder: of the scan.
        out: the file to write, replaced whole or not at all.
        keep: of safe, unsafe, undecided (no score), error (no image).
        threshold: the least score that is unsafe, in (0, 1]; None: the verdicts of the scan's policy.
        form: parquet, jsonl or csv: a row per image with source, id, shard, index, number, kind, score,
            level, category, whatever the other images of its sample are (in csv, what spreadsheets would take for
            a formula begins with an apostrophe); txt: the id of each sample,
            where safe ones are kept only if every image of every sample with this id is, else if one
            is; view: for `View`, which samples have only images that are kept.

        absolute: give the files of folders by their absolute paths: in a column `path`, and in place of ids in txt.

    Returns:
        How many images (parquet, jsonl, csv) or samples (txt, view) were kept.

    Raises:
        DataError: no scan, none of these kinds, the file cannot be written, or `absolute` and images that are no files.
        ValueError: an unknown kind or form, a threshold outside (0, 1], or absolute paths in a view.
    """
    if unknown := sorted(set(keep) - set(KINDS)) or ([] if keep else ["nothing"]):
        raise ValueError(f"export cannot keep {', '.join(unknown)}; choose among {', '.join(KINDS)}")
    if form not in _WRITERS:
        raise ValueError(f"export knows no form {form!r}; choose one of {', '.join(_WRITERS)}")
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"export: threshold is {threshold}; it is a score above 0 and up to 1")
    if absolute and form == "view":
        raise ValueError("export: loaders look for ids in a view, not for paths; leave absolute out")
    _refuse_own(Path(folder), Path(out))
    with locked(Path(folder), shared=True):
        scanned = _Scanned(Path(folder), frozenset(keep), threshold, absolute=absolute)
        written = _WRITERS[form](scanned, Path(out))
    if not scanned.kinds:
        raise DataError(f"{folder}: holds no rows yet; run its `safevlm scan` again")
    if not written:
        found = ", ".join(f"{count} {kind}" for kind, count in scanned.kinds.items())
        raise DataError(f"{folder}: nothing to keep; it has {found}, and {', '.join(keep)} was asked for")
    return written


def _refuse_own(folder: Path, out: Path) -> None:
    """Raise DataError where a list would take the place of what the scan wrote."""
    target, own = Path(os.path.realpath(out)), Path(os.path.realpath(folder))
    if target.parent in (own / ROWS, own / THUMBNAILS) or target in (own / name for name in FILES):
        raise DataError(f"{out}: belongs to the scan itself; choose another file for the list")


class _Scanned:
    """What a scan's ledger knows of its shards, and their rows.

    Args:
        folder: of the scan.
        keep: kinds.
        threshold, absolute: see `export`.
    """

    def __init__(
        self, folder: Path, keep: frozenset[str], threshold: float | None, *, absolute: bool = False
    ) -> None:
        self.keep, self.absolute = keep, absolute
        self.kinds: Counter[str] = Counter()
        self._rows, self._threshold = folder / ROWS, threshold
        with opened(folder) as ledger:
            states = list(ledger.shards())
        self._parts = {part_name(state.planned.number) for state in states if state.status}
        self._shards = [(state.source, state.planned.shard.name) for state in states]
        self._unfinished = {(state.source, state.planned.shard.name): state.unfinished for state in states}
        left = sum(1 for state in states if state.status != DONE and state.planned.take != 0)
        if left:
            logger.warning(
                "%s: %d of %d shards are not scanned to their end; what has no row is not in the list. "
                "Run the scan's command again for the rest", folder, left, len(states)
            )  # fmt: skip

    def rows(self) -> Iterator[ResultRow]:
        """Every row with its kind, counted."""
        self.kinds.clear()
        for row in iterate_parts(self._rows, _READ, only=self._parts):
            kind = row["verdict"]
            if row["status"] == ERROR:
                kind = ERROR
            elif row["status"] == OK and self._threshold is not None:
                kind = (Verdict.UNSAFE if row["score"] >= self._threshold else Verdict.SAFE).value
            self.kinds[kind] += 1
            yield row | {"kind": kind}

    def images(self) -> Iterator[ResultRow]:
        """The columns of the images that are kept."""
        names = [column.name for column in COLUMNS]
        for row in self.rows():
            if row["kind"] in self.keep:
                found = {name: row[name] for name in names}
                yield found | {"path": path_of(row["source"], row["id"])} if self.absolute else found

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of `images`."""
        return (*COLUMNS, PATH) if self.absolute else COLUMNS

    def samples(self) -> Iterator[Sample]:
        """Every sample, in the rows' order; holds those of a shard at a time."""
        for (source, shard), members in groupby(self.rows(), key=itemgetter("source", "shard")):
            unfinished = self._unfinished.get((source, shard))
            found: dict[str, tuple[bool, bool]] = {}
            for row in members:
                whole, partly = found.get(row["id"], (row["id"] != unfinished, False))
                kept = row["kind"] in self.keep
                found[row["id"]] = whole and kept, partly or kept
            yield from (Sample(source, shard, id, whole, partly) for id, (whole, partly) in found.items())

    def shards(self) -> list[tuple[str, str]]:
        """Source and name of every shard that was planned."""
        return self._shards


def _parquet(scanned: _Scanned, out: Path) -> int:
    return _table(scanned.images(), out, scanned.columns, EXPORT_FORMAT)


def _view(scanned: _Scanned, out: Path) -> int:
    return _table(_view_rows(scanned), out, VIEW_COLUMNS, VIEW_FORMAT)


def _view_rows(scanned: _Scanned) -> Iterator[ResultRow]:
    empty = dict.fromkeys(scanned.shards())
    for source, shard, id, whole, _ in scanned.samples():
        empty.pop((source, shard), None)
        yield {"source": source, "shard": shard, "id": id, "kept": whole}
    # named, so that a tar none of whose samples has a row is not taken for another one
    for source, shard in empty:
        yield {"source": source, "shard": shard, "id": "", "kept": False}


def _table(rows: Iterable[ResultRow], out: Path, columns: Sequence[Column], mark: str) -> int:
    """Write a table; returns how many of its rows are kept, which all are where no column says so."""
    file, written = PartFile(out, columns, mark=mark), 0
    try:
        for row in rows:
            file.add([row])
            written += row.get("kept", True)
        if written:
            file.commit()
    finally:
        file.discard()
    return written


def _jsonl(scanned: _Scanned, out: Path) -> int:
    return _lines((json.dumps(row) for row in scanned.images()), out)


def _csv(scanned: _Scanned, out: Path) -> int:
    names = [column.name for column in scanned.columns]
    rows = (csv_line(row[name] for name in names) for row in scanned.images())
    return _lines(rows, out, heading=csv_line(names))


def _txt(scanned: _Scanned, out: Path) -> int:
    return _lines(_ids(scanned), out)


def _ids(scanned: _Scanned) -> Iterator[str]:
    """Ids of samples: of what is safe none that may mean something else, of what is flagged rather too many."""
    wholly = Verdict.SAFE.value in scanned.keep
    refused = {sample.id for sample in scanned.samples() if not sample.whole} if wholly else set()
    for sample in scanned.samples():
        if sample.id not in refused if wholly else sample.partly:
            if not sample.id.isprintable():
                raise DataError(
                    f"the id {sample.id!r} does not fit into a line of text; export as jsonl or csv"
                )
            yield path_of(sample.source, sample.id) if scanned.absolute else sample.id


def _lines(lines: Iterable[str], out: Path, *, heading: str = "") -> int:
    written = 0
    try:
        replacement = Replacement(out)
        try:
            if heading:
                replacement.file.write(f"{heading}\n".encode())
            for line in lines:
                replacement.file.write(f"{line}\n".encode())
                written += 1
            if written:
                replacement.commit()
        finally:
            replacement.discard()
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error}); choose another place") from error
    return written


_WRITERS: dict[str, Callable[[_Scanned, Path], int]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "csv": _csv,
    "txt": _txt,
    "view": _view,
}
