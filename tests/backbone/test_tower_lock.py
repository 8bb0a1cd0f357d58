"""A child that is forked while a thread holds a tower."""

from __future__ import annotations

import os
import threading

import pytest

from safevlm.backbone.tower_lock import lock_of
from tests.tiny import tiny_llava

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(lock, module) -> int:
    """0 where a forked child takes the lock and finds the module as it was, 1 where not."""
    child = os.fork()
    if not child:
        free = lock._lock.acquire(timeout=5)
        os._exit(0 if free and "forward" not in vars(module) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_lock_that_another_thread_holds_is_new_in_the_child():
    module = tiny_llava().model.vision_tower
    lock, held, done = lock_of(module), threading.Event(), threading.Event()

    def hold() -> None:
        with lock, lock.undoing(lambda: vars(module).pop("forward")):
            module.forward = lambda *_: None
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(lock, module) == 0
        assert "forward" in vars(module)  # the parent's thread is still at it
        assert not lock._lock.acquire(blocking=False)
    finally:
        done.set()
        thread.join()
    assert "forward" not in vars(module)
    assert lock._lock.acquire(blocking=False)
    lock._lock.release()


def test_the_thread_that_forks_keeps_its_own():
    module = tiny_llava().model.vision_tower
    lock = lock_of(module)
    with lock, lock.undoing(lambda: None):
        child = os.fork()
        if not child:
            os._exit(0 if len(lock._undo) == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
