"""What a scan leaves behind: `rows/part-*.parquet` and `summary.json`."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safevlm.data.parts import PART_NAME, UNFINISHED_NAME, Column, written_by
from safevlm.errors import DataError
from safevlm.scan.worker import Row

FORMAT = "safevlm-scan/1"
ROWS, SUMMARY = "rows", "summary.json"

COLUMNS = (
    Column("id", "string", nullable=False),
    Column("width", "int32"),  # pixels, of the upright picture
    Column("height", "int32"),
    Column("sha256", "string"),  # of the file's bytes; null where they could not be read
    Column("score", "float32"),  # P(unsafe) in [0, 1]; null unless status is ok
    Column("level", "string"),
    Column("category", "string"),
    Column("verdict", "string", nullable=False),  # safe, unsafe, undecided
    Column("status", "string", nullable=False),  # ok, undecided, error
    Column("reason", "string", nullable=False),  # empty where status is ok
    Column("level_probabilities", "scores", nullable=False),
    Column("category_probabilities", "scores", nullable=False),
    Column("calibrated", "bool", nullable=False),
)


@dataclass(frozen=True)
class ScanSummary:
    """A scan in numbers; they are those of the rows.

    Args:
        n: rows written.
        total: rows that a complete scan writes.
        statuses, verdicts: value -> rows.
        levels, categories: value -> rows; rows without a score are in none.
        seconds: wall time; images_per_second = n / seconds.
        model: the scorer's name; None where it has none.
        policy_sha256: hash of the scorer's policy; None where it has none.
        versions: package -> version.
        interrupted: whether the scan ended before `total`.
    """

    n: int
    total: int
    statuses: Mapping[str, int]
    verdicts: Mapping[str, int]
    levels: Mapping[str, int]
    categories: Mapping[str, int]
    seconds: float
    images_per_second: float
    model: str | None
    policy_sha256: str | None
    versions: Mapping[str, str]
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in summary.json."""
        return {"format": FORMAT, **asdict(self)}

    def write(self, out: Path) -> None:
        """Write `out/summary.json`, whole or not at all."""
        unfinished = out / f".{SUMMARY}.tmp"
        unfinished.write_text(json.dumps(self.to_dict(), indent=2) + "\n", "utf-8")
        os.replace(unfinished, out / SUMMARY)


@dataclass
class Tally:
    """Counts of the rows seen so far."""

    n: int = 0
    columns: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("status", "verdict", "level", "category")}
    )

    def add(self, rows: Iterable[Row]) -> None:
        """Count rows in."""
        for row in rows:
            self.n += 1
            for name, counts in self.columns.items():
                if row[name] is not None:
                    counts[row[name]] += 1


def versions() -> dict[str, str]:
    """Python and the packages that a scan's numbers depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in ("safevlm", "torch", "transformers", "timm", "pillow", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def prepare(out: Path, *, fresh: bool) -> Path:
    """Make `out/rows/` ready for a new scan and return it.

    Raises:
        DataError: `out` is a file, holds an earlier scan (unless `fresh`), or holds files in its
            place that no scan wrote; nothing has been removed then.
    """
    rows, summary = out / ROWS, out / SUMMARY
    for folder in (out, rows):
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder}: is a file; choose another folder for the scan")
    parts = sorted(rows.iterdir()) if rows.is_dir() else []
    present = [*parts, summary] if os.path.lexists(summary) else parts
    if present and not fresh:
        raise DataError(f"{out}: already holds a scan; choose another folder, or --fresh to replace its rows")
    for path in present:
        if not (_own_summary(path) if path == summary else _own_part(path)):
            raise DataError(f"{path}: was not written by a scan, so it is not removed; choose another folder")
    for path in present:
        path.unlink()
    try:
        rows.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{rows}: cannot be made ({error.strerror}); choose another folder") from error
    return rows


def _own_part(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return bool(UNFINISHED_NAME.fullmatch(path.name)) or (
        bool(PART_NAME.fullmatch(path.name)) and written_by(path) == FORMAT
    )


def _own_summary(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT
