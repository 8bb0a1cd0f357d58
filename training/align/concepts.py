"""Concept sets: images of things that are unsafe, and of harmless ones, each with the concept that it shows.

| form | what it holds |
|---|---|
| folder | `root/<category>/<concept>/file`; what stands under `root/safe/` is harmless, all else unsafe |
| table | Parquet, JSONL or JSON with the columns `image`, `category` and `unsafe_concept` or `concept` (without either, a row's category is its concept); a row is harmless where its category, or its `safety_label`, is safe |

A table may name each image's `source`. The columns are those of `yiting/UnsafeConcepts` and `yiting/UnsafeBench`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.labelled.formats import raw_rows
from safevlm.labelled.image_keys import image_keys
from safevlm.labelled.images import read_value
from safevlm.labelled.raw import BadRowError, RawRow
from safevlm.printable import shortened

from .gold import Gold

SAFE = "safe"
"""The category of harmless concepts."""
COLUMNS = ("image", "category", "unsafe_concept", "concept", "safety_label", "source")
SHOWN = 20
"""Bad rows that an error message lists."""


@dataclass(frozen=True)
class ConceptImage:
    """An image of a concept set.

    Args:
        image: encoded bytes, or a file.
        key: sha256 of the encoded bytes, 64 hex digits.
        concept, category: names.
        gold: whether it is safe.
        source: where it comes from; empty where the set does not say.
        where: file and row, for messages.
    """

    image: bytes | Path
    key: str
    concept: str
    category: str
    gold: Gold
    source: str
    where: str


def read_concepts(path: str | Path) -> list[ConceptImage]:
    """Read a concept set and check every image of it.

    Raises:
        DataError: no such folder or table, no image, or bad ones: an image without a concept, one that cannot be
            decoded, or one that is safe in one place and unsafe in another (file and reason of each).
        MissingExtraError: the table is Parquet, and pyarrow is not installed.
    """
    root = Path(path)
    table = not root.is_dir() or any(root.glob("*.parquet"))
    found = list(_of_table(root) if table else _of_folder(root))
    images = [one for one in found if isinstance(one, ConceptImage)]
    checked = image_keys([one.image for one in images], decoded=True)
    bad = [one for one in found if isinstance(one, str)]
    bad += [f"{one.where}: {error}" for one, (_, error) in zip(images, checked, strict=True) if error]
    images = [replace(one, key=key) for one, (key, _) in zip(images, checked, strict=True)]
    bad += _contradictions([one for one in images if one.key])
    if bad:
        listed = "\n  ".join([*bad[:SHOWN], *["..."][: len(bad) > SHOWN]])
        raise DataError(f"{root}: {len(bad)} bad of {len(found)} images; correct or remove them:\n  {listed}")
    if not images:
        raise DataError(f"{root}: has no images; a concept set is root/<category>/<concept>/file, or a table")
    return images


def _of_folder(root: Path) -> Iterator[ConceptImage | str]:
    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            file = Path(folder, name)
            parts = file.relative_to(root).parts
            if len(parts) != 3:
                yield f"{file}: has no concept; put it into {root}/<category>/<concept>/"
            else:
                gold: Gold = "safe" if parts[0].lower() == SAFE else "unsafe"
                yield ConceptImage(file, "", parts[1], parts[0], gold, "", str(file))


def _of_table(path: Path) -> Iterator[ConceptImage | str]:
    folder = (path if path.is_dir() else path.parent).resolve()
    for row in raw_rows(path, COLUMNS):
        where = f"{row.file}: row {row.number}"
        try:
            yield _row(row, where, folder)
        except BadRowError as error:
            yield f"{where}, column {error.column}: {error.reason}"


def _row(row: RawRow, where: str, folder: Path) -> ConceptImage:
    if row.error is not None:
        raise row.error
    category = _text(row.values, "category")
    named = [name for name in ("unsafe_concept", "concept") if name in row.values]
    concept = next((text for name in named if (text := _text(row.values, name))), "" if named else category)
    label = _text(row.values, "safety_label").lower() or ("safe" if category.lower() == SAFE else "unsafe")
    if label not in ("safe", "unsafe"):
        raise BadRowError("safety_label", f"is {shortened(label, 40, quoted=True)}; write safe or unsafe")
    gold: Gold = "safe" if label == "safe" else "unsafe"
    if not concept:
        raise BadRowError("concept", "is empty; name what the image shows")
    image = read_value(row.values.get("image"), file=row.file, folder=folder)
    if image is None:
        raise BadRowError("image", "is empty; a row of a concept set has one")
    return ConceptImage(image, "", concept, category or gold, gold, _text(row.values, "source"), where)


def _text(values: dict[str, Any], column: str) -> str:
    value = values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRowError(column, f"is a {type(value).__name__}, not text")
    return value.strip()


def _contradictions(images: Sequence[ConceptImage]) -> list[str]:
    first: dict[str, ConceptImage] = {}
    for one in images:
        first.setdefault(one.key, one)
    return [
        f"{one.where}: is {one.gold} here, and the same image is {first[one.key].gold} at {first[one.key].where}"
        for one in images
        if first[one.key].gold != one.gold
    ]
