"""A lock on a scan's folder: one writer at a time, and none while others read."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safevlm.errors import DataError

if sys.platform != "win32":
    import fcntl

_HELD = (errno.EAGAIN, errno.EACCES)
"""What `flock` fails with where somebody else has the lock; file systems without locks fail with others."""


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder for the length of the block.

    The lock is the kernel's, on the folder itself: it leaves no file behind, and is released when the process
    ends, also by SIGKILL. On Windows, which has none, only the ledger's own lock remains.

    Args:
        folder: made if it is not there, and removed again if the block leaves a new one empty.
        shared: for those who read it: any number of them at a time, but none while somebody writes. A
            folder that is not there is not made.

    Raises:
        DataError: another process holds the folder, or it cannot be made.
    """
    if sys.platform == "win32" or (shared and not folder.is_dir()):
        yield
        return
    made = not shared and _made(folder)
    descriptor = _held(folder, shared)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # not empty
                folder.rmdir()
        os.close(descriptor)


def _made(folder: Path) -> bool:
    """Make the folder; returns whether it was not there."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        if folder.is_dir():  # by another process, just now
            return False
        raise DataError(f"{folder}: is a file; choose another folder for the scan") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}); choose another folder") from error
    return True


def _held(folder: Path, shared: bool) -> int:
    """A descriptor of the folder that has the lock."""
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise DataError(f"{folder}: cannot be opened ({error}); choose another folder") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        except OSError as error:
            if error.errno in _HELD:
                inode = os.fstat(descriptor).st_ino
                os.close(descriptor)
                raise DataError(
                    f"{folder}: another scan is writing there{_holder(inode)}, or its rows are being read; "
                    "wait for it, or choose another folder"
                ) from error
        if not _replaced(folder, descriptor):
            return descriptor
        os.close(descriptor)
        _made(folder)


def _replaced(folder: Path, descriptor: int) -> bool:
    """Whether the path leads elsewhere now: another process removed the folder between the two calls."""
    try:
        return not os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return True


def _holder(inode: int) -> str:
    """The text " (process 123)" for the process that holds the lock on an inode; empty if the system does not say."""
    try:
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return ""
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 8095 fd:01:1234 0 EOF
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[5].endswith(f":{inode}"):
            return f" (process {words[4]})"
    return ""
