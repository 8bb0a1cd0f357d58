"""A switch that several threads may hold off at once, and leave in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol


class Locked(Protocol):
    """Owns the lock that is held while a switch turns."""

    @property
    def lock(self) -> AbstractContextManager[object]: ...


class Switch:
    """On, but while somebody holds it off.

    Args:
        owner: of the lock that is held while it turns: what runs under it sees one state from beginning to end.
        around: a context that is entered when it goes off and left when the last one lets go.
    """

    def __init__(
        self, owner: Locked, around: Callable[[], AbstractContextManager[object]] | None = None
    ) -> None:
        self._owner, self._around = owner, around
        self._holders, self._entered = 0, ExitStack()

    def __bool__(self) -> bool:
        return self._holders == 0

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within the context it is off."""
        with self._owner.lock:
            if not self._holders and self._around is not None:
                self._entered.enter_context(self._around())
            self._holders += 1
        try:
            yield
        finally:
            with self._owner.lock:
                self._holders -= 1
                if not self._holders:
                    self._entered.close()
