"""Files and folders that appear whole or not at all: written under a hidden name beside their place, synced, renamed."""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = r"(\.[0-9a-f]{8})?\.tmp"
"""Pattern of what follows a file's name in its hidden one."""

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What syncing a folder fails with on file systems that have no such thing, some network ones among them."""


class Replacement:
    """A file in the making. The hidden name cannot be guessed, and nothing that has it already is opened.

    Args:
        path: what it will be called; its folder is there. A file or a symbolic link there is replaced.

    Raises:
        OSError: the folder or the disk does not take it; from `commit`, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hidden = _hidden(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self.file = os.fdopen(os.open(self._hidden, flags, 0o666), "wb")

    def commit(self) -> None:
        """Put the file in its place, whole."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self._hidden, self.path)
        _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        try:
            self.file.close()
        finally:
            self._hidden.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Replacement]:
    """A file that takes its place when the block ends well, and is gone otherwise.

    Raises:
        OSError: as for `Replacement`.
    """
    replacement = Replacement(path)
    try:
        yield replacement
        replacement.commit()
    finally:
        replacement.discard()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all. Raises OSError as `Replacement` does."""
    with replacing(path) as replacement:
        replacement.file.write(data)


@contextmanager
def replacing_folder(folder: Path, *, last: str) -> Iterator[Path]:
    """A hidden folder whose files and folders take their places in `folder` when the block ends well.

    Where `folder` is there already, what is written replaces what has its name, one after another; the rest stays.

    Args:
        folder: made where it does not exist.
        last: name of the file that takes its place last.

    Raises:
        OSError: the disk does not take it; an error of the block leaves `folder` as it is.
    """
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        if (
            re.fullmatch(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{8}}\.tmp", left.name)
            and not left.is_symlink()
        ):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    hidden = _hidden(folder)
    hidden.mkdir(parents=True)
    try:
        yield hidden
        for path in hidden.rglob("*"):
            if path.is_file():
                _sync_file(path)
        if not folder.exists():
            os.rename(hidden, folder)
        else:
            for path in sorted(hidden.iterdir(), key=lambda path: path.name == last):
                target = folder / path.name
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                os.replace(path, target)
            _sync_folder(folder)
        _sync_folder(folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _hidden(path: Path) -> Path:
    """A name beside `path` that cannot be guessed."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a renamed file's new name last, where the system and the file system can sync folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
