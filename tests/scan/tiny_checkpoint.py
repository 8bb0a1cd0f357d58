"""The tiny model as folders, and what a scan left behind as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.tiny import tiny_guard, tiny_llava, tiny_processor


def save_tiny(folder: Path) -> tuple[str, str]:
    """Write the tiny guard and its backbone; returns their folders."""
    tiny_guard().save_pretrained(folder / "guard")
    tiny_llava().save_pretrained(folder / "backbone")
    tiny_processor().save_pretrained(folder / "backbone")
    return str(folder / "guard"), str(folder / "backbone")


def rows_of(out: Path, kind: str = "rows") -> list[dict[str, Any]]:
    """The rows of all part files, in the order of the shards."""
    return [row for part in sorted((out / kind).glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def files_below(out: Path) -> set[str]:
    """Relative names of everything that is there."""
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
