"""Image processors compute in float32, whatever torch's default dtype is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_LOCK = RLock()


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Within the context new tensors are float32; nothing is changed where they are already.

    Lightning's `bf16-true` makes bfloat16 the default, in which processors lose digits or fail: numpy has no such type.
    """
    if torch.get_default_dtype() == torch.float32:
        yield
        return
    with _LOCK:  # the default belongs to the whole process
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
