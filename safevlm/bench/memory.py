"""Memory: how much a call takes, how much is available, and what to do if it runs out."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

STATUS, RESET, MEMORY = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")
RESET_PEAK = "5"  # proc(5): sets VmHWM, the peak resident set, to the present one


def peak_growth(call: Callable[[], object], device: torch.device) -> int | None:
    """Run `call` and return its peak memory above the memory in use before, in bytes.

    On CUDA this counts the bytes of the allocator, on a CPU the resident pages of the whole process, after free
    ones were returned to the system. None if that cannot be measured (it needs Linux and the GNU C library).
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _start_resident_peak():
        call()
        return None
    resident = _kilobytes(STATUS, "VmRSS")
    call()
    peak = _kilobytes(STATUS, "VmHWM")
    return None if resident is None or peak is None else max(0, peak - resident) * 1024


def _start_resident_peak() -> bool:
    """Return free pages to the system and reset the peak; False if this system cannot."""
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    gc.collect()
    trim(0)
    try:
        RESET.write_text(RESET_PEAK)
    except OSError:  # not allowed in some containers
        return False
    return True


def available_memory() -> int | None:
    """Memory that is available without swapping, in bytes; None if it is unknown (it needs Linux)."""
    found = _kilobytes(MEMORY, "MemAvailable")
    return None if found is None else found * 1024


def _kilobytes(file: Path, name: str) -> int | None:
    if not file.exists():
        return None
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return None


def weight_bytes(*modules: nn.Module) -> int:
    """Size of the modules' parameters and buffers in bytes; shared tensors count once."""
    tensors = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensors.values())


@contextmanager
def fitting(device: torch.device) -> Iterator[list[str]]:
    """Context that ends when memory runs out; the list then holds the reason, otherwise it is empty."""
    problem: list[str] = []
    try:
        yield problem
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        text = str(error).strip() or type(error).__name__
        problem.append(f"does not fit in memory: {text.splitlines()[0].split('. ')[0]}")
    if problem:  # outside the handler, whose traceback keeps the tensors alive
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    # torch's CPU allocator raises a plain RuntimeError
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
