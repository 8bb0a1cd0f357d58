"""What stands in the cells of an exported list: text that no spreadsheet runs, and absolute paths."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterable

from safevlm.errors import DataError

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a cell begins with that spreadsheets take for a formula, full-width forms included (OWASP, CSV Injection)."""


def csv_line(values: Iterable[object]) -> str:
    """A line of a CSV file without its end; numbers stay, text that would be a formula gets an apostrophe in front."""
    line = io.StringIO()
    # both characters of the end are quoted where they stand in a cell
    csv.writer(line, lineterminator="\r\n").writerow([_harmless(value) for value in values])
    return line.getvalue().removesuffix("\r\n")


def _harmless(value: object) -> object:
    if isinstance(value, str) and (value.startswith(FORMULA) or value.lstrip().startswith(FORMULA)):
        return f"'{value}"
    return value


def path_of(source: str, id: str) -> str:
    """The absolute path, or the URL, of an image in a folder.

    Args:
        source: the URI of the source.
        id: of the image; a name that is not UTF-8 stands in it with `\\xNN`, and has no exact path.

    Raises:
        DataError: the source is no folder, so that its images are no files.
    """
    kind, _, location = source.partition(":")
    if kind != "folder":
        raise DataError(
            f"{source}: its images are no files of their own, so they have no paths; export their ids"
        )
    root = location.removesuffix("?follow_symlinks=yes")
    return posixpath.join(root, id) if "://" in root else os.path.join(os.path.abspath(root), id)
