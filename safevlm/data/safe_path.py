"""Checks that the paths that a data set's own files name stay inside its folder."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from safevlm.data import storage
from safevlm.errors import DataError
from safevlm.printable import shortened

MAX_JSON = 1 << 24
"""Bytes of a JSON file that describes a data set, 16 MiB."""


def check_relative(name: str, where: str) -> None:
    """Raise DataError if a name or pattern is a URL, an absolute path, or leads to a parent folder.

    Args:
        name: as it stands in `where`, a file of the data set.
        where: for the message.
    """
    parts = re.split(r"[/\\]", name)
    try:
        is_url = "::" in name or "://" in name or urlsplit(name).scheme != ""
    except ValueError:
        is_url = True
    if is_url:
        raise DataError(
            f"{where}: names {shortened(name)}, which is a URL; download it into the folder first"
        )
    if name.startswith(("/", "\\", "~")) or ".." in parts or "\0" in name or not name:
        raise DataError(f"{where}: names {shortened(name)}, which leaves the folder; copy it into the folder")


def check_real(folder: str, path: str, where: str) -> None:
    """Raise DataError if a symlink leads the path out of the folder."""
    inside = os.path.join(os.path.realpath(folder), "")
    if not os.path.join(os.path.realpath(path), "").startswith(inside):
        raise DataError(
            f"{where}: {shortened(path)} leads out of the folder; copy what it names into the folder"
        )


def file_inside(folder: str, name: str, where: str) -> str:
    """The path of a file that a file of the data set names. Raises DataError if it is no file in the folder."""
    path = _path(folder, name, where)
    if not os.path.isfile(path):
        raise DataError(f"{folder}: {where} names {shortened(name)}, which is no file there; save it again")
    return path


def folder_inside(folder: str, name: str, where: str) -> str:
    """The path of a folder that a file of the data set names. Raises DataError if it is no folder in the folder."""
    path = _path(folder, name, where)
    if not os.path.isdir(path):
        raise DataError(f"{folder}: {where} names {shortened(name)}, which is no folder there; save it again")
    return path


def text_inside(folder: str, name: str, most: int) -> str:
    """Read a text file of the data set. Raises DataError if it cannot be read or has more than `most` bytes."""
    try:
        with storage.open_binary(_path(folder, name, folder)) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise DataError(f"{folder}: {name} has more than {most:,} bytes; shorten it")
        return data.decode("utf-8-sig")
    except storage.failures() as error:
        if storage.may_pass(error):
            raise storage.unreachable(os.path.join(folder, name), error) from error
        raise DataError(f"{folder}: {name} cannot be read ({shortened(storage.reason(error))})") from error


def _path(folder: str, name: str, where: str) -> str:
    check_relative(name, f"{folder}: {where}" if where != folder else folder)
    path = os.path.join(folder, name)
    check_real(folder, path, folder)
    return path
