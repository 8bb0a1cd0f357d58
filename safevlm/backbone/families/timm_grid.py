"""timm models whose output is a grid: convolutional networks, and transformers such as Swin that keep one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from safevlm.errors import BackboneError

from .alone import TowerAlone
from .grid import GridFamily


@dataclass(frozen=True)
class TimmGridConfig:
    """What is asked of a Hugging Face vision config, of a timm model whose output is a grid.

    Args:
        hidden_size: width of the features.
    """

    hidden_size: int
    model_type: ClassVar[str] = "timm"


class TimmGridTower(nn.Module):
    """A timm model with the call of a Hugging Face vision model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = TimmGridConfig(int(model.num_features))

    def forward(
        self, pixel_values: Tensor, *, output_hidden_states: bool = False, return_dict: bool = True
    ) -> BaseModelOutput:
        """Pixel values (B, 3, H, W) -> features (B, dim, h, w) as `last_hidden_state`."""
        features = self.model.forward_features(pixel_values)
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        return BaseModelOutput(last_hidden_state=features)


def check_grid(model: Any, name: str, size: tuple[int, int]) -> None:
    """Raise BackboneError unless the model's output for images of a size (height, width) is a grid.

    Args:
        model: in eval mode; on the meta device nothing is computed.
    """
    like = next(model.parameters())
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, 3, *size, device=like.device, dtype=like.dtype))
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    channels = -1 if getattr(model, "output_fmt", "NCHW") == "NHWC" else 1
    if len(shape) != 4 or shape[channels] != model.num_features:
        gives = f"features of shape {shape}" if shape else f"a {type(features).__name__}"
        raise BackboneError(
            f"{name}: {type(model).__name__} gives {gives}, not a grid of {model.num_features} channels; give a timm "
            "VisionTransformer, or a model with a grid, such as an EfficientNet, ConvNeXt, ResNet or Swin"
        )


class TimmGrid(GridFamily, TowerAlone):
    """Read at the model's output, before pooling."""

    def set_attention(self, tower: Any, name: str) -> None:
        """Raises ValueError: these models choose themselves."""
        raise ValueError(f"{type(tower.model).__name__} has no attention to choose")


TIMM_GRID = TimmGrid()
