"""Threads that do not outlive an interrupted scan."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Daemon threads that work off one queue, in the order of what is submitted.

    Those of `ThreadPoolExecutor` are waited for, in its `with` block and when the interpreter ends:
    one that is stuck in a hostile file would keep a scan from ending at Ctrl-C.

    Args:
        count: how many.
        name: of the threads.
    """

    def __init__(self, count: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            SimpleQueue()
        )
        self._threads = [Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in one of the threads."""
        future: Future[T] = Future()
        self._work.put((future, function, arguments))
        return future

    def close(self) -> None:
        """End the threads after what they are doing, without waiting for it."""
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            _do(*work)
            del work  # it may hold a batch, and the next one may be long in coming


def _do(future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments)
    except BaseException as error:  # noqa: BLE001  # raised again by `result()`, in the thread that waits
        future.set_exception(error)
    else:
        future.set_result(result)
