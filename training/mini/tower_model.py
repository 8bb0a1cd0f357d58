"""The vision tower's pre-training model: a CLIPVisionModel with classifiers on its last two layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel


def tower_config(*, width: int = 192, layers: int = 6, heads: int = 8, size: int = 64) -> CLIPVisionConfig:
    """The tower's configuration: patches of 8 pixels, MLP four times as wide."""
    return CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        image_size=size, patch_size=8, projection_dim=width,
    )  # fmt: skip


def start_local(tower: CLIPVisionModel, *, sharpness: float = 2.5) -> None:
    """Start the heads of every layer but the last as the eight neighbours of a 3 x 3 convolution.

    After Zheng, Li and Lucey (2401.12511), whose structured start gives a vision transformer the
    sample efficiency of a convolution: positions are 2-D sinusoids in 16 channels of their own, which
    nothing else writes at the start, and head i looks one step in the direction i.
    Raises ValueError where the heads are not eight or too narrow for the code.
    """
    core: Any = getattr(tower, "vision_model", tower)
    config: Any = tower.config
    side, code = int(config.image_size // config.patch_size), 16
    depth = config.hidden_size // config.num_attention_heads
    if config.num_attention_heads != len(_NEIGHBOURS) or depth < code:
        raise ValueError(
            f"{config.num_attention_heads} heads of {depth} channels: eight of {code} or more needed"
        )
    row, column = (torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side))
    with torch.no_grad():
        core.embeddings.patch_embedding.weight[:code] = 0
        core.embeddings.class_embedding[:code] = 0
        positions = core.embeddings.position_embedding.weight
        positions[:, code:] *= 0.1
        positions[0, :code] = 0
        positions[1:, :code] = torch.cat([_sinusoids(row), _sinusoids(column)], dim=1)
        for layer in core.encoder.layers[:-1]:
            attention = layer.self_attn
            attention.out_proj.weight[:code] = 0
            layer.mlp.fc2.weight[:code] = 0
            for head, (down, right) in enumerate(_NEIGHBOURS):
                rows = slice(head * depth, head * depth + code)
                scale = (sharpness * depth**0.5) ** 0.5
                turn = torch.block_diag(_rotation(down), _rotation(right))
                attention.q_proj.weight[rows, :code] += scale * turn
                attention.k_proj.weight[rows, :code] += scale * torch.eye(code)


_NEIGHBOURS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))
_FREQUENCIES = torch.arange(1, 5) * torch.pi / 8


def _sinusoids(places: Tensor) -> Tensor:
    angles = places[:, None] * _FREQUENCIES
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)


def _rotation(steps: int) -> Tensor:
    angles = steps * _FREQUENCIES
    turns = [torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]]) for a in angles]
    turn: Tensor = torch.block_diag(*turns)
    return turn


def hidden_states(tower: CLIPVisionModel, images: Tensor, *, keep: Tensor | None = None) -> list[Tensor]:
    """All hidden states (n, 1 + patches, width), embeddings first, of images float (n, 3, h, w).

    `keep` int (n, k) names the patches (0-based) that enter the layers: the others are dropped,
    which saves the time they would take. None keeps all and equals the tower's own forward.
    """
    core = getattr(tower, "vision_model", tower)
    states = core.embeddings(images)
    if keep is not None:
        index = torch.cat([torch.zeros_like(keep[:, :1]), keep + 1], dim=1)
        states = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
    states = core.pre_layrnorm(states)
    found = [states]
    for layer in core.encoder.layers:
        states = layer(states, attention_mask=None)
        states = states[0] if isinstance(states, tuple) else states
        found.append(states)
    return found


def grid_size(tower: CLIPVisionModel) -> int:
    """Number of patches of the tower's image."""
    config: Any = tower.config
    return int(config.image_size // config.patch_size) ** 2


class TowerClassifier(nn.Module):
    """The tower with its training heads.

    Layer -2 (what LLaVA reads) is pooled twice, by the mean and by one learned query, and names
    the label; small heads read colour and count of scenes from it; the CLS token of the last
    layer names the label too.
    """

    def __init__(self, tower: CLIPVisionModel, *, labels: int, colours: int = 10, counts: int = 4) -> None:
        super().__init__()
        self.tower = tower
        width = tower.config.hidden_size
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.zeros(width))
        self.mean_head, self.query_head = nn.Linear(width, labels), nn.Linear(width, labels)
        self.last_norm, self.last_head = nn.LayerNorm(width), nn.Linear(width, labels)
        self.colour_head, self.count_head = nn.Linear(width, colours), nn.Linear(width, counts)

    def forward(self, images: Tensor, *, keep: Tensor | None = None) -> dict[str, Tensor]:
        """Logits float (n, classes) of the heads `mean`, `query`, `last`, `colour` and `count`."""
        states = hidden_states(self.tower, images, keep=keep)
        patches = self.norm(states[-2][:, 1:])
        mean = patches.mean(1)
        weights = (patches @ self.query / patches.shape[-1] ** 0.5).softmax(1)
        pooled = (weights[..., None] * patches).sum(1)
        return {
            "mean": self.mean_head(mean), "query": self.query_head(pooled),
            "last": self.last_head(self.last_norm(states[-1][:, 0])),
            "colour": self.colour_head(mean), "count": self.count_head(mean),
        }  # fmt: skip


def random_patches(n: int, *, patches: int, kept: int, generator: torch.Generator) -> Tensor:
    """Sorted random patch numbers int64 (n, kept), without repetition in a row."""
    order = torch.rand(n, patches, generator=generator).argsort(1)[:, :kept]
    return order.sort(1).values
