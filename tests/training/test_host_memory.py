"""Where the weights of a backbone are while it trains: in the mapped files, or on the process's own device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safevlm.training.loading import load_guard
from safevlm.training.options import Sizes

from tests.training.builders import SIZES


def mapped(pointer: int) -> str:
    """The file that an address of this process's memory is mapped to; empty for its own memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        places, _, _, _, _, *file = line.split()
        start, end = (int(place, 16) for place in places.split("-"))
        if start <= pointer < end:
            return file[0] if file else ""
    return ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_processes_of_a_host_share_the_mapped_weights(backbone):
    guard = load_guard(str(backbone), None, Sizes(**SIZES), "auto", device=torch.device("cpu"))
    weights = [p for p in guard.language_model.parameters() if p.untyped_storage().nbytes() > 4096]
    assert weights
    assert {Path(mapped(p.data_ptr())).name for p in weights} == {"model.safetensors"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_weights_go_to_the_process_own_device_and_modules_are_float32(backbone, dtype):
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    guard = load_guard(str(backbone), None, Sizes(**SIZES), dtype, device=device)
    assert {p.device for p in guard.parameters()} == {device}
    assert {p.dtype for p in guard.safety.parameters()} == {torch.float32}
