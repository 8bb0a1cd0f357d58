"""The rows of a scan -> a list of kept or flagged images, or a view that data loaders filter by."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from safevlm.data.parts import Column, PartFile, iterate_parts
from safevlm.errors import DataError
from safevlm.scan.output import ROWS
from safevlm.scan.view import VIEW_COLUMNS, VIEW_FORMAT
from safevlm.scan.worker import ERROR, OK, Row
from safevlm.types import Verdict

KINDS = ("safe", "unsafe", "undecided", "error")
EXPORT_FORMAT = "safevlm-export/1"
COLUMNS = (
    Column("id", "string", nullable=False),
    Column("shard", "string", nullable=False),
    Column("index", "int32", nullable=False),
    Column("number", "int32", nullable=False),
    Column("kind", "string", nullable=False),  # safe, unsafe, undecided, error: what the row was kept as
    Column("score", "float32"),
    Column("level", "string"),
    Column("category", "string"),
)
_READ = ("id", "shard", "index", "number", "score", "level", "category", "verdict", "status")


def export(
    folder: str | Path,
    out: str | Path,
    *,
    keep: Sequence[str] = ("safe",),
    threshold: float | None = None,
    form: str = "parquet",
) -> int:
    """Write which images of a scan are of some kinds; the source stays as it is.

    Args:
        folder: of the scan.
        out: the file to write, replaced whole or not at all.
        keep: of safe, unsafe, undecided (no score), error (no image).
        threshold: the least score that is unsafe, in (0, 1]; None: the verdicts of the scan's policy.
        form: parquet or jsonl: a row per image with id, shard, index, number, kind, score, level,
            category; txt: a line per sample with such an image; view: samples all of whose images are
            kept, for `View`.

    Returns:
        How many lines or rows were written.

    Raises:
        DataError: no rows, none of these kinds, or the file cannot be written.
        ValueError: an unknown kind or form, or a threshold outside (0, 1].
    """
    if unknown := sorted(set(keep) - set(KINDS)) or ([] if keep else ["nothing"]):
        raise ValueError(f"export cannot keep {', '.join(unknown)}; choose among {', '.join(KINDS)}")
    if form not in _WRITERS:
        raise ValueError(f"export knows no form {form!r}; choose one of {', '.join(_WRITERS)}")
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"export: threshold is {threshold}; it is a score above 0 and up to 1")
    kinds: Counter[str] = Counter()
    rows = _kinds(Path(folder) / ROWS, threshold, kinds)
    written = _WRITERS[form](rows, frozenset(keep), Path(out))
    if not kinds:
        raise DataError(f"{folder}: holds no rows; give the folder that `safevlm scan` wrote to")
    if not written:
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise DataError(f"{folder}: nothing to keep; it has {found}, and {', '.join(keep)} was asked for")
    return written


def _kinds(folder: Path, threshold: float | None, seen: Counter[str]) -> Iterator[Row]:
    """Every row with its kind, counted."""
    for row in iterate_parts(folder, _READ):
        kind = row["verdict"]
        if row["status"] == ERROR:
            kind = ERROR
        elif row["status"] == OK and threshold is not None:
            kind = (Verdict.UNSAFE if row["score"] >= threshold else Verdict.SAFE).value
        seen[kind] += 1
        yield row | {"kind": kind}


def _parquet(rows: Iterable[Row], keep: frozenset[str], out: Path) -> int:
    names = [column.name for column in COLUMNS]
    kept = ({name: row[name] for name in names} for row in rows if row["kind"] in keep)
    return _table(kept, out, COLUMNS, EXPORT_FORMAT)


def _view(rows: Iterable[Row], keep: frozenset[str], out: Path) -> int:
    samples = ({"shard": shard, "id": id} for shard, id in _whole_samples(rows, keep))
    return _table(samples, out, VIEW_COLUMNS, VIEW_FORMAT)


def _whole_samples(rows: Iterable[Row], keep: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Samples none of whose images is of another kind: one unsafe image takes its sample along."""
    for shard, members in groupby(rows, key=itemgetter("shard")):
        kept: dict[str, bool] = {}
        for row in members:
            kept[row["id"]] = kept.get(row["id"], True) and row["kind"] in keep
        yield from ((shard, id) for id, whole in kept.items() if whole)


def _table(rows: Iterable[Row], out: Path, columns: Sequence[Column], mark: str) -> int:
    file, written = PartFile(out, columns, mark=mark), 0
    try:
        for row in rows:
            file.add([row])
            written += 1
        if written:
            file.commit()
    finally:
        file.discard()
    return written


def _jsonl(rows: Iterable[Row], keep: frozenset[str], out: Path) -> int:
    names = [column.name for column in COLUMNS]
    return _lines(
        (json.dumps({name: row[name] for name in names}) for row in rows if row["kind"] in keep), out
    )


def _txt(rows: Iterable[Row], keep: frozenset[str], out: Path) -> int:
    def ids() -> Iterator[str]:
        last: Any = None
        for row in rows:
            if row["kind"] in keep and (row["shard"], row["id"]) != last:
                last = (row["shard"], row["id"])
                if not row["id"].isprintable():
                    raise DataError(f"the id {row['id']!r} does not fit into a line of text; export as jsonl")
                yield row["id"]

    return _lines(ids(), out)


def _lines(lines: Iterable[str], out: Path) -> int:
    unfinished, written = out.with_name(f".{out.name}.tmp"), 0
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(f"{line}\n")
                written += 1
        if written:
            os.replace(unfinished, out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error}); choose another place") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return written


_WRITERS: dict[str, Callable[[Iterable[Row], frozenset[str], Path], int]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "txt": _txt,
    "view": _view,
}
