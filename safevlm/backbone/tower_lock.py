"""A lock on a vision tower, which knows how to undo what its holder did to the module.

What made this file awkward: a forked child gets the memory of its parent, but of its threads only the
one that forked. A lock that another thread held would never be released there, and the module would
stay as that thread left it for a moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from weakref import WeakKeyDictionary

from torch import nn


class TowerLock:
    """Reentrant. Held while a module runs or replays, so that threads and towers that share it do not see each other's features."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> TowerLock:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def undoing(self, undo: Callable[[], None]) -> Iterator[None]:
        """Call a function when the block ends, and in a child that is forked meanwhile by another thread."""
        self._undo.append(undo)
        try:
            yield
        finally:
            self._undo.remove(undo)
            undo()

    def renew(self) -> None:
        """In a forked child: free again, unless the thread that forked holds it itself."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return
        for undo in reversed(self._undo):
            undo()
        self._lock, self._undo = RLock(), []


_LOCKS: WeakKeyDictionary[nn.Module, TowerLock] = WeakKeyDictionary()
_LOCKS_LOCK = Lock()


def lock_of(module: nn.Module) -> TowerLock:
    """The one lock of a module."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(module, TowerLock())


def _renew_all() -> None:
    global _LOCKS_LOCK
    _LOCKS_LOCK = Lock()
    for lock in list(_LOCKS.values()):
        lock.renew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_all)
