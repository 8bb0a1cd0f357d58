"""Muon: momentum whose matrices are orthogonalised, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices (2-D parameters); updates have the size of AdamW's.

    The Newton-Schulz iteration runs in `dtype`; bfloat16 is quick on some CPUs and slow on others.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._dtype = dtype
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; `closure` is not used."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                self._update(parameters, group)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            buffer.lerp_(parameter.grad, 1 - group["momentum"])
            directions.append(parameter.grad.lerp(buffer, group["momentum"]))
        rows, columns = parameters[0].shape
        scale = 0.2 * max(rows, columns) ** 0.5
        for parameter, update in zip(
            parameters, orthogonal(torch.stack(directions).to(self._dtype)), strict=True
        ):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices (singular values near 1) of float (n, rows, columns)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def matrices_and_rest(model: nn.Module, *, inside: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that Muon should have (2-D ones whose name holds `inside`), and all others."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    chosen = [p for name, p in named if inside in name and p.ndim == 2]
    held = {id(p) for p in chosen}
    return chosen, [p for _, p in named if id(p) not in held]
