"""Small safety modules with every parameter random, so that a dropped bias or zero start shows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from safevlm.modules import SafetyDims, SafetyModules

DIMS = SafetyDims(vision_dim=12, dim=32, text_dim=20, hidden_dim=16, depth=1, num_tokens=5, num_heads=4)


def random_modules(*, seed: int = 0, **changes: object) -> SafetyModules:
    torch.manual_seed(seed)
    modules = SafetyModules(replace(DIMS, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return modules


def features_for(grid: tuple[int, int], *, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid[0] * grid[1], DIMS.vision_dim, generator=generator)


def prompts(*, batch: int = 3, length: int = 7, seed: int = 2) -> Tensor:
    assert DIMS.text_dim is not None
    return torch.randn(batch, length, DIMS.text_dim, generator=torch.Generator().manual_seed(seed))
