"""Freezing that holds: no gradients, and eval mode whatever `train()` is called."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def freeze(module: ModuleT) -> ModuleT:
    """Freeze a module (not a copy of it) and return it.

    No parameter takes gradients, and `train(True)` on the module, on one of its parts or on a
    parent leaves every part in eval mode. Parts that are added later (LoRA layers) are not frozen.
    """
    module.eval()
    for part in module.modules():
        # on the instance: nn.Module.train walks children and calls what each of them carries
        part.train = partial(_stay_in_eval, part)  # type: ignore[method-assign]
    return module.requires_grad_(False)


def _stay_in_eval(module: ModuleT, mode: bool = True) -> ModuleT:
    """Stands in for `nn.Module.train` on a frozen module."""
    return module
