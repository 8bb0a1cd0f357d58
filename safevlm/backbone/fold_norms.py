"""BatchNorm folded into the convolution before it: the same function with fewer steps, for inference alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4
"""Largest change of an output, relative to the largest output, that rounding explains."""


@torch.no_grad()
def fold_batch_norms(model: nn.Module, example: Tensor) -> int:
    """Fold every BatchNorm of a frozen model that reads a convolution's output alone, in place.

    Where the outputs for `example` then differ by more than rounding, all is put back as it was (a convolution
    whose output is read elsewhere, too).

    Args:
        model: in eval mode; gives an output with `last_hidden_state`.
        example: (1, 3, H, W), for which the model is run.

    Returns:
        How many were folded.
    """
    noise = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example) * 2 - 1
    pairs, before = _pairs(model, noise)
    kept = {id(conv): (conv, conv.weight, conv.bias) for conv, _ in pairs}
    norms = {id(norm): norm for _, norm in pairs}
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if id(child) in norms
    ]
    for conv, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        conv.requires_grad_(False)
    for parent, name, norm in places:
        setattr(parent, name, _rest(norm))
    after = model(noise).last_hidden_state
    if (after - before).abs().max() <= TOLERANCE * before.abs().max():
        return len(pairs)
    for conv, weight, bias in kept.values():
        conv.weight, conv.bias = weight, bias
    for parent, name, norm in places:
        setattr(parent, name, norm)
    return 0


def _pairs(model: nn.Module, example: Tensor) -> tuple[list[tuple[Any, Any]], Tensor]:
    """Convolutions and the BatchNorms that read what they give, and the model's output."""
    made: dict[int, nn.Module] = {}
    pairs: list[tuple[Any, Any]] = []
    kept: list[Tensor] = []  # so that no other tensor takes an id

    def note(conv: nn.Module, _: Any, output: Tensor) -> None:
        made[id(output)] = conv
        kept.append(output)

    def read(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if (conv := made.pop(id(args[0]), None)) is not None:
            pairs.append((conv, norm))

    with ExitStack() as hooks:
        for part in model.modules():
            if isinstance(part, nn.Conv2d):
                hooks.callback(part.register_forward_hook(note).remove)
            elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
                hooks.callback(part.register_forward_pre_hook(read).remove)
        output = model(example).last_hidden_state
    once = {id(part) for pair in pairs for part in pair}
    return (pairs if len(once) == 2 * len(pairs) else []), output


def _rest(norm: nn.Module) -> nn.Module:
    """What timm's BatchNorm does behind the norm: dropout and activation."""
    parts = [part for name in ("drop", "act") if (part := getattr(norm, name, None)) is not None]
    return nn.Sequential(*parts).eval()
