"""Folders of classes: `root[/<split>]/<category>[/<level>]/file`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from safevlm.errors import DataError
from safevlm.taxonomy import Taxonomy

from .columns import label_name
from .raw import SPLITS, BadRowError, RawRow

LOGGER = logging.getLogger(__name__)


def read_class_folders(root: Path, taxonomy: Taxonomy) -> Iterator[RawRow]:
    """Every file is a row: of the safe level in the clean category, of the highest in another, or of its folder's.

    Files that do not fit, and symlinks to folders, are rows with an error; hidden ones are counted.

    Raises:
        DataError: a folder that cannot be listed.
    """
    hidden = 0
    for file in _files(root):
        parts = file.relative_to(root).parts
        if any(part.startswith(".") for part in parts):
            hidden += 1
        elif file.is_dir():
            reason = "is a symlink to a folder, which is not followed; give its target, or copy it here"
            yield RawRow(file, 1, {}, BadRowError("(path)", reason))
        else:
            yield _row(file, parts, taxonomy)
    if hidden:
        LOGGER.warning(
            "%s: passed over %d hidden files and folders, whose names begin with a dot", root, hidden
        )


def _files(root: Path) -> list[Path]:
    """Files and symlinks to folders, sorted."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from error

    found = []
    for folder, folders, files in os.walk(root, onerror=refuse):
        for name in [name for name in folders if name.startswith(".")]:
            folders.remove(name)  # what a hidden folder holds is not looked at
            found.append(Path(folder, name))
        found += [Path(folder, name) for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder, name) for name in files]
    return sorted(found)


def _row(file: Path, parts: tuple[str, ...], taxonomy: Taxonomy) -> RawRow:
    """A file is a row of its own, number 1."""
    first = label_name(parts[0], taxonomy.category_names)
    split = None if first else SPLITS.get(parts[0].lower())
    folders = parts[1:-1] if split else parts[:-1]
    if not 1 <= len(folders) <= 2:
        reason = "does not stand in <category>/ or <category>/<level>/"
        return RawRow(file, 1, {}, BadRowError("(path)", reason))
    category = label_name(folders[0], taxonomy.category_names) or folders[0]
    known = category in taxonomy.category_names
    if not known and len(folders) == 2 and label_name(folders[1], taxonomy.category_names):
        reason = f"{folders[0]!r} is no split; known are {', '.join(SPLITS)}"
        return RawRow(file, 1, {}, BadRowError("(path)", reason))
    level = taxonomy.safe_level if category == taxonomy.clean else taxonomy.levels[-1]
    if len(folders) == 2:
        level = folders[1]
    return RawRow(file, 1, {"image": file, "risk_category": category, "risk_level": level, "split": split})
