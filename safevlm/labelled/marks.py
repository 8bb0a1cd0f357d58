"""Marks that a person made on a scan's report -> rows with their images.

A line of the exported file names its image by source, shard and index in the shard, and tells by the
sha256 of the image's bytes whether it is still the one that was marked. Sources on this machine alone
are opened: a file of marks comes from elsewhere, and may name any URL.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from safevlm.data import Shard, Source, open_source
from safevlm.errors import DataError

from .raw import BadRowError, RawRow, whole_number

LOGGER = logging.getLogger(__name__)

COLUMNS = {"source", "shard", "index", "sha256", "mark"}
"""What tells a mark from another row."""
KINDS = ("right", "wrong", "unsure")


def with_marked_images(rows: Iterable[RawRow]) -> Iterator[RawRow]:
    """Pass rows through; marks come last, with their images, and each shard is read once.

    Marks that give no label (unsure, or wrong without saying what the image is) are left out, and
    their number is logged. A mark whose image cannot be had any more is a row with an error.
    """
    marks: list[RawRow] = []
    unlabelled = 0
    for row in rows:
        if row.error is not None or not is_mark(row.values):
            yield row
            continue
        row = replace(row, values=_normalised(row.values))
        if (error := _problem(row.values)) is not None:
            yield replace(row, error=error)
        elif _labelled(row.values):
            marks.append(row)
        else:
            unlabelled += 1
    if unlabelled:
        LOGGER.warning("left out %d marks that give no label (unsure)", unlabelled)
    marks.sort(key=lambda row: (row.values["source"], row.values["shard"]))
    for uri, group in groupby(marks, key=lambda row: row.values["source"]):
        yield from _in_source(uri, list(group))


def is_mark(values: dict[str, Any]) -> bool:
    """Whether a row is a mark, complete or not: it says right, wrong or unsure of an image in a shard."""
    return values.get("mark") is not None and (values.get("shard") is not None or set(values) >= COLUMNS)


def _normalised(values: dict[str, Any]) -> dict[str, Any]:
    """Indices and hashes as a scan writes them: 3.0 and "3", which other programs make of a 3, are 3."""
    found = {**dict.fromkeys(COLUMNS), **values}
    index = whole_number(found["index"])
    if index is not None:
        found["index"] = index
    for column, form in (("sha256", str.lower), ("mark", str.lower)):
        if isinstance(found[column], str):
            found[column] = form(found[column].strip())
    return found


def _problem(values: dict[str, Any]) -> BadRowError | None:
    for column in ("source", "shard", "sha256"):
        if values[column] is None:
            return BadRowError(column, "is missing, not text; export the marks again")
        if not isinstance(values[column], str):
            return BadRowError(column, f"is a {type(values[column]).__name__}, not text")
    if type(values["index"]) is not int or values["index"] < 0:
        return BadRowError("index", f"is {values['index']!r}, a whole number from 0 is needed")
    if values["mark"] not in KINDS:
        return BadRowError("mark", f"is {values['mark']!r}; known are {', '.join(KINDS)}")
    return None


def _labelled(values: dict[str, Any]) -> bool:
    return values["mark"] != "unsure" and bool(values.get("risk_level") or values.get("risk_category"))


def _in_source(uri: str, marks: list[RawRow]) -> Iterator[RawRow]:
    if not _is_local(uri):
        reason = "is not on this machine, and marks may name any URL; download it, and scan and mark the copy"
        yield from _without(marks, "source", reason)
        return
    try:
        source = open_source(uri)
        shards = {shard.name: shard for shard in source.shards()}
    except DataError as error:
        yield from _without(marks, "source", str(error))
        return
    LOGGER.info("reading %d marked images from %s", len(marks), uri)
    for name, group in groupby(marks, key=lambda row: row.values["shard"]):
        if name in shards:
            yield from _in_shard(source, shards[name], group)
        else:
            yield from _without(group, "shard", f"{name!r} is not in {uri}; it has changed since the scan")


def _is_local(uri: str) -> bool:
    """Whether reading a source fetches nothing."""
    kind, _, location = uri.partition(":")
    if kind == "hf" and not Path(location.partition("?")[0]).is_dir():
        return False
    return "://" not in unquote(uri)  # options are quoted


def _in_shard(source: Source, shard: Shard, marks: Iterable[RawRow]) -> Iterator[RawRow]:
    wanted: defaultdict[int, list[RawRow]] = defaultdict(list)
    for row in marks:
        wanted[row.values["index"]].append(row)
    reason = f"shard {shard.name!r} no longer reaches this image; it has changed since the scan"
    try:
        for index, item in enumerate(source.read(shard)):
            for row in wanted.pop(index, ()):
                yield _with_image(row, item.data, item.error)
            if not wanted:
                return
    except DataError as error:
        reason = str(error)
    for rows in wanted.values():
        yield from _without(rows, "index", reason)


def _with_image(row: RawRow, data: bytes | None, error: str) -> RawRow:
    if data is None:
        return replace(row, error=BadRowError("index", error))
    if hashlib.sha256(data).hexdigest() != row.values["sha256"]:
        return replace(row, error=BadRowError("sha256", "is another; the image has changed since the scan"))
    return replace(row, values={**row.values, "image": data})


def _without(rows: Iterable[RawRow], column: str, reason: str) -> Iterator[RawRow]:
    for row in rows:
        yield replace(row, error=BadRowError(column, reason))
