"""Folders and Parquet tables of concept sets -> rows, of which a table's images are read for the chosen ones alone."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safevlm.data.boundary import parser_errors
from safevlm.data.folder import is_image_name
from safevlm.errors import DataError, MissingExtraError
from safevlm.printable import shortened

from .images import read_value
from .raw import BadRowError

IMAGE, CATEGORY, CONCEPT, LABEL, SOURCE = "image", "category", "unsafe_concept", "safety_label", "source"
"""Columns of a table: those of UnsafeConcepts (image, category, unsafe_concept) and UnsafeBench (image, category, safety_label,
source)."""
SAFE = "safe"
"""The category of harmless concepts, whatever its case."""
LABELS = {"safe": False, "unsafe": True}
BATCH = 16
"""Rows that are in memory at a time."""


@dataclass(frozen=True)
class ConceptRow:
    """One row, as it was written.

    Args:
        id: file, or table and row number, counted from 1.
        image: a path or encoded bytes; None where there is an error.
        source: where the image comes from; empty where the set does not tell.
        error: why the row cannot be used.
    """

    id: str
    image: Path | bytes | None
    category: str = ""
    concept: str = ""
    unsafe: bool = True
    source: str = ""
    error: str = ""


def is_table(path: Path) -> bool:
    """Whether a path is a Parquet file, or a folder with some at any depth."""
    return path.suffix.lower() == ".parquet" or (
        path.is_dir() and next(path.rglob("*.parquet"), None) is not None
    )


def folder_rows(root: Path) -> Iterator[ConceptRow]:
    """Images of `root/<category>/<concept>/`, sorted by name; hidden files and those that are no images are passed over.

    What stands in the category `SAFE` is harmless, all else unsafe.

    Raises:
        DataError: no such folder, or none that can be listed.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; give a folder <category>/<concept>/<images>, a Parquet file, or hf:<org>/<name>"
        )

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error

    inside = root.resolve()
    files = sorted(
        Path(folder, name)
        for folder, folders, names in os.walk(root, onerror=refuse)
        for name in (*names, *(name for name in folders if os.path.islink(os.path.join(folder, name))))
    )
    for file in files:
        parts = file.relative_to(root).parts
        if any(part.startswith(".") for part in parts):
            continue
        if file.is_dir():
            yield ConceptRow(
                str(file), None, error="is a symlink to a folder, which is not followed; copy what it names"
            )
        elif not is_image_name(file.name):
            continue
        elif len(parts) != 3:
            yield ConceptRow(str(file), None, error="stands in no <category>/<concept>/; move it into one")
        elif not file.resolve().is_relative_to(inside):
            yield ConceptRow(str(file), None, error="is a symlink that leaves the folder; copy what it names")
        else:
            category, concept = (part.replace("_", " ") for part in parts[:2])
            yield ConceptRow(str(file), file, category, concept, category.lower() != SAFE)


def table_rows(path: Path, *, n: int | None, seed: int) -> Iterator[ConceptRow]:
    """The bad rows of a table, and up to `n` others of each concept and label, all for None, with their images.

    Raises:
        DataError: a file that is not whole Parquet, or lacks the columns.
        MissingExtraError: pyarrow is not installed.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files or not path.exists():
        raise DataError(f"{path}: no such table; check the path")
    names = {file: str(file.relative_to(path)) if path.is_dir() else file.name for file in files}
    labels = [row for file in files for row in _label_rows(file, names[file])]
    groups: defaultdict[tuple[str, str, bool], list[str]] = defaultdict(list)
    for row in labels:
        if not row.error:
            groups[row.category, row.concept, row.unsafe].append(row.id)
    kept: set[str] = set()
    for key, ids in groups.items():
        kept.update(
            random.Random(f"concepts:{seed}:{key}").sample(ids, len(ids) if n is None else min(n, len(ids)))
        )
    yield from (row for row in labels if row.error)
    chosen = {row.id: row for row in labels if row.id in kept}
    for file in files:
        yield from _with_images(file, names[file], chosen)


def _label_rows(file: Path, name: str) -> Iterator[ConceptRow]:
    names = _columns(file)
    for number, values in _batches(
        file, [column for column in (CATEGORY, CONCEPT, LABEL, SOURCE) if column in names]
    ):
        yield _labelled(f"{name}, row {number}", values, names)


def _labelled(id: str, values: dict[str, Any], names: set[str]) -> ConceptRow:
    category, concept, label = (values.get(name) for name in (CATEGORY, CONCEPT, LABEL))
    if not isinstance(category, str) or not category.strip():
        return ConceptRow(id, None, error=f"column {CATEGORY} is empty; every image needs its category")
    if CONCEPT in names and (not isinstance(concept, str) or not concept.strip()):
        return ConceptRow(
            id, None, error=f"column {CONCEPT} is empty; name what the image shows, or leave the row out"
        )
    if LABEL in names and (not isinstance(label, str) or label.strip().lower() not in LABELS):
        return ConceptRow(
            id, None, error=f"column {LABEL} is {shortened(str(label), 40)!r}; it is Safe or Unsafe"
        )
    unsafe = LABELS[str(label).strip().lower()] if LABEL in names else category.strip().lower() != SAFE
    # of UnsafeBench's images the category alone is known, and what a safe one shows is not even that
    named = concept if CONCEPT in names else category if unsafe else ""
    source = values.get(SOURCE)
    return ConceptRow(id, None, category, str(named), unsafe, source if isinstance(source, str) else "")


def _with_images(file: Path, name: str, chosen: dict[str, ConceptRow]) -> Iterator[ConceptRow]:
    folder = file.parent.resolve()
    for number, values in _batches(file, [IMAGE]):
        row = chosen.get(f"{name}, row {number}")
        if row is None:
            continue
        try:
            image = read_value(values[IMAGE], file=file, folder=folder)
        except BadRowError as error:
            yield ConceptRow(row.id, None, error=f"column {IMAGE} {error}")
            continue
        if image is None:
            yield ConceptRow(
                row.id, None, error=f"column {IMAGE} is empty; add the image, or leave the row out"
            )
        else:
            yield replace(row, image=image)


def _columns(file: Path) -> set[str]:
    with _opened(file) as table:
        names = set(table.schema_arrow.names)
    if not {IMAGE, CATEGORY} <= names or not {CONCEPT, LABEL} & names:
        raise DataError(
            f"{file}: has the columns {', '.join(sorted(map(str, names)))}; {IMAGE}, {CATEGORY}, and {CONCEPT} or {LABEL} are needed"
        )
    return names


def _batches(file: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers, counted from 1."""
    number = 0
    with _opened(file) as table:
        batches = table.iter_batches(batch_size=BATCH, columns=columns)
        while True:
            with parser_errors(lambda error: _broken(file, error)):
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            if batch is None:
                return
            for values in rows:
                number += 1
                yield number, values


def _opened(file: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    with parser_errors(lambda error: _broken(file, error)):
        return pyarrow.parquet.ParquetFile(file)


def _broken(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file}: is not a whole Parquet file ({shortened(str(error))}); write or download it again"
    )
