"""What a scan leaves behind: rows/ and thumbnails/ in part files, the ledger, summary.json, report.html."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from safevlm.errors import DataError, MissingExtraError
from safevlm.files import UNFINISHED
from safevlm.results.parts import PART_NAME, UNFINISHED_NAME, written_by
from safevlm.results.schema import REPORT, ROWS, SUMMARY, THUMBNAILS, part_name
from safevlm.scan.ledger import FORMAT, LEDGER, Ledger

FILES = (SUMMARY, REPORT, LEDGER, f"{LEDGER}-journal")
"""What a scan's folder has besides the part files."""

_UNFINISHED_FILE = re.compile(rf"\.({re.escape(SUMMARY)}|{re.escape(REPORT)}){UNFINISHED}")


def prepare(out: Path, *, fresh: bool) -> None:
    """Make `out` ready for a scan; what a killed run left unfinished goes.

    Raises:
        DataError: `out` is a file, cannot be written, or holds files in a scan's place that none
            wrote; nothing has been removed then.
    """
    for folder in (out, out / ROWS, out / THUMBNAILS):
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder}: is a file; choose another folder for the scan")
    parts = [path for name in (ROWS, THUMBNAILS) if (out / name).is_dir() for path in (out / name).iterdir()]
    own = _own_ledger(out / LEDGER)
    foreign = [path for path in parts if not _own_part(path, look_inside=fresh or not own)]
    if os.path.lexists(out / SUMMARY) and not _own_summary(out / SUMMARY):
        foreign.append(out / SUMMARY)
    if os.path.lexists(out / LEDGER) and not own:
        foreign.append(out / LEDGER)
    if os.path.lexists(out / REPORT) and not own:
        foreign.append(out / REPORT)
    if foreign:
        raise _foreign(min(foreign))
    finished = [path for path in parts if PART_NAME.fullmatch(path.name)]
    if finished and not own and not fresh:
        raise DataError(
            f"{out}: holds rows, but no {LEDGER} that knows them; choose another folder, or --fresh to replace them"
        )
    if fresh and own:
        Ledger(out / LEDGER, half_applied=True).close()  # raises where another scan is at work
    try:
        for path in parts:
            if fresh or UNFINISHED_NAME.fullmatch(path.name):
                path.unlink()
        if fresh:
            for name in FILES:
                (out / name).unlink(missing_ok=True)
        for path in out.iterdir():
            if _UNFINISHED_FILE.fullmatch(path.name) and not path.is_dir():
                path.unlink()  # the name alone: what a link leads to stays
        for name in (ROWS, THUMBNAILS):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error}); choose another folder") from error


def refuse_inside(uri: str, out: Path) -> None:
    """Raise DataError where what a scan writes to `out` would count as its source.

    Args:
        uri: of the source; one that is not on this machine holds no local folder.
        out: the scan's folder, which need not be there yet.
    """
    location = re.sub(r"\?\w+=.*", "", uri.partition(":")[2])
    if "://" in location:
        return
    target = os.path.realpath(out)
    if os.path.isdir(location):
        inside = Path(target).is_relative_to(os.path.realpath(location))
    else:
        inside = any(
            _matches(os.path.join(target, name), location)
            for name in (f"{ROWS}/{part_name(0)}", f"{THUMBNAILS}/{part_name(0)}")
        )
    if inside:
        raise DataError(
            f"{out}: lies inside the source {uri}, so that what the scan writes would be scanned, too; "
            "choose a folder outside it"
        )


def _matches(path: str, location: str) -> bool:
    """Whether a glob or brace pattern may mean a path; rather once too often."""
    if not re.search(r"[*?\[{]", location):
        return False
    try:
        from fsspec.utils import glob_translate
    except ImportError as error:
        raise MissingExtraError("fsspec", "scan") from error
    return bool(re.match(glob_translate(re.sub(r"\{[^{}]*\}", "*", location)), path))


def check_parts(out: Path, numbers: Iterable[int]) -> None:
    """Raise DataError where the rows of a finished shard are not there any more."""
    there = {path.name for path in (out / ROWS).iterdir()}
    for number in numbers:
        if part_name(number) not in there:
            raise DataError(
                f"{out / ROWS / part_name(number)}: is gone; put it back, or --fresh to scan again"
            )


def drop_parts(out: Path, *, keep: Iterable[int]) -> None:
    """Remove the parts but for those of some shards: what a killed run put in place and the ledger does not know.

    Raises:
        DataError: a file there was not written by a scan, or cannot be removed.
    """
    known = {part_name(number) for number in keep}
    unknown = [
        path for name in (ROWS, THUMBNAILS) for path in (out / name).iterdir() if path.name not in known
    ]
    for path in unknown:
        if not _own_part(path, look_inside=True):
            raise _foreign(path)
    try:
        for path in unknown:
            path.unlink()
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error}); choose another folder") from error


def drop_unfinished(out: Path) -> None:
    """Remove part files that nobody finished, one that an interrupt met while it was being made among them."""
    for name in (ROWS, THUMBNAILS):
        for path in (out / name).iterdir():
            if UNFINISHED_NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _foreign(path: Path) -> DataError:
    remedy = "choose another folder"
    if path.name == LEDGER:  # a damaged one looks like no ledger at all
        remedy += ", or remove the file and give --fresh"
    return DataError(f"{path}: was not written by a scan, or is damaged, so it stays; {remedy}")


def _own_part(path: Path, *, look_inside: bool) -> bool:
    """Whether a scan wrote a file; by its name alone where thousands of them have a ledger beside them."""
    if path.is_symlink() or not path.is_file():
        return False
    if UNFINISHED_NAME.fullmatch(path.name):
        return True
    return bool(PART_NAME.fullmatch(path.name)) and (not look_inside or written_by(path) == FORMAT)


def _own_summary(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith("safevlm-scan/")


def _own_ledger(path: Path) -> bool:
    """Whether a file is a ledger of this format, or one that a killed run had just begun."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        database = sqlite3.connect(path, timeout=0)
        try:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'settings'").fetchone():
                return path.stat().st_size == 0
            found = database.execute("SELECT value FROM settings WHERE name = 'format'").fetchone()
        finally:
            database.close()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)  # opening it says so, with the remedy
    except sqlite3.DatabaseError:
        return False
    return bool(found == (FORMAT,))
