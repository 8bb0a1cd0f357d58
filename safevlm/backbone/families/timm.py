"""timm's `VisionTransformer` as a vision tower: CLIP's, SigLIP's, and others of that class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from .alone import TowerAlone


@dataclass(frozen=True)
class TimmConfig:
    """What is asked of a Hugging Face vision config, of a timm model.

    Args:
        hidden_size: width of the features.
        patch_size: (height, width) in pixels.
        num_hidden_layers: blocks of the whole tower.
        has_class_token: whether there are positions before the patches.
    """

    hidden_size: int
    patch_size: tuple[int, int]
    num_hidden_layers: int
    has_class_token: bool
    model_type: ClassVar[str] = "timm"


class TimmTower(nn.Module):
    """A timm model with the call of a Hugging Face vision model; it computes no block beyond what is read.

    Args:
        model: the timm model.
        layers: how many of its blocks are read; None: its output, after the final norm.
        config: of the whole tower, of which the model may have the first blocks alone.
    """

    def __init__(self, model: Any, *, layers: int | None, config: TimmConfig) -> None:
        super().__init__()
        self.model = model
        self.layers = layers
        self.config = config

    def forward(
        self, pixel_values: Tensor, *, output_hidden_states: bool = False, return_dict: bool = True
    ) -> BaseModelOutput:
        """Pixel values (B, 3, H, W) -> patch features (B, h * w, dim) as `last_hidden_state`."""
        if self.layers is None:
            patches = self.model.forward_features(pixel_values)[:, self.model.num_prefix_tokens :]
        else:
            (patches,) = self.model.forward_intermediates(
                pixel_values,
                indices=[self.layers - 1],
                stop_early=True,
                output_fmt="NLC",
                intermediates_only=True,
            )
        return BaseModelOutput(last_hidden_state=patches)


def timm_config(model: Any) -> TimmConfig:
    """The config of a whole timm model."""
    return TimmConfig(
        model.embed_dim, tuple(model.patch_embed.patch_size), len(model.blocks), model.num_prefix_tokens > 0
    )


class Timm(TowerAlone):
    """Read at the last block but one where it has a class token, as CLIP is, else at its output, as SigLIP is."""

    def vision_layer(self, config: Any) -> int | None:
        """The last block serves the class token alone."""
        return -2 if config.has_class_token else None

    def set_attention(self, tower: Any, name: str) -> None:
        """`"sdpa"` or `"eager"`."""
        if name not in ("sdpa", "eager"):
            raise ValueError(f"attn_implementation is {name!r}; a timm tower has 'sdpa' and 'eager'")
        for block in tower.model.blocks:
            block.attn.fused_attn = name == "sdpa"

    def features(self, output: Any, *, layer: int | None, drops_class_token: bool) -> Tensor:
        """`TimmTower` gives patches of the layer that is read, and nothing else."""
        patches: Tensor = output.last_hidden_state
        return patches

    def matrices(self, tower: nn.Module, layers: int | None) -> Iterator[Tensor]:
        """In the order and the pieces of the Hugging Face classes, where keys, values and queries stand apart."""
        model: Any = tower.model
        yield model.patch_embed.proj.weight
        if model.pos_embed is not None:
            yield model.pos_embed
        for name, parameter in model.blocks[:layers].named_parameters():
            if name.endswith("attn.qkv.weight"):
                queries, keys, values = parameter.chunk(3)
                yield from (keys, values, queries)
            elif parameter.ndim > 1:
                yield parameter
