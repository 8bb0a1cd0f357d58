"""The safety projector: vision features -> the space in which the safety head attends."""

from __future__ import annotations

from einops import rearrange
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from ._checks import positive


class SafetyProjector(nn.Module):
    """C-Abstractor (Honeybee, arXiv 2312.06742) as SafeVLM uses it (arXiv 2405.13581, authors' code).

    RegStage(in -> H) -> average pool to `pool_grid` -> RegStage(H -> H) -> Linear(H -> out) -> SiLU
    -> Linear(out -> out). Its output goes to the safety head only, never to the language model.

    Args:
        in_dim: width of the vision features (CLIP ViT-L/14: 1024).
        out_dim: width of the output (LLaVA-1.5-7B: 4096, the language model's).
        hidden_dim: channels H of both stages. 1024 as the tower's width; the authors' code has
            1088 = 1024 + 64, which looks accidental.
        depth: blocks per stage; 3 in the paper.
        pool_grid: (h, w) of the output; None keeps the input's grid, which is what the paper's
            pooling of 24 x 24 patches to 24 x 24 amounts to.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden_dim: int = 1024,
        depth: int = 3,
        pool_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        positive("SafetyProjector", in_dim=in_dim, out_dim=out_dim, hidden_dim=hidden_dim, depth=depth)
        if pool_grid is not None:
            height, width = pool_grid
            positive("SafetyProjector.pool_grid", height=height, width=width)
            pool_grid = (height, width)
        self.in_dim = in_dim
        self.pool_grid = pool_grid
        self.encode = _stage(depth, in_dim, hidden_dim)
        self.pool: nn.Module = nn.Identity() if pool_grid is None else nn.AdaptiveAvgPool2d(pool_grid)
        self.decode = _stage(depth, hidden_dim, hidden_dim)
        self.expand = nn.Linear(hidden_dim, out_dim)
        self.act = nn.SiLU()
        self.last = nn.Linear(out_dim, out_dim)

    def output_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        """The (h, w) of the output for features on `grid`; M = h * w."""
        return grid if self.pool_grid is None else self.pool_grid

    def hidden(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Everything before the last Linear; `forward` is `last(hidden(...))`, which folding uses.

        Args:
            features: (B, N, in_dim), the parameters' dtype; patches row by row, no CLS token.
            grid: (h, w) with h * w == N; may differ from call to call and need not be square.

        Returns:
            (B, M, out_dim), the parameters' dtype; M = product of `output_grid(grid)`.
        """
        self._check(features, grid)
        height, width = grid
        maps = rearrange(features, "b (h w) c -> b c h w", h=height, w=width)
        maps = self.decode(self.pool(self.encode(maps)))
        hidden: Tensor = self.act(self.expand(rearrange(maps, "b c h w -> b (h w) c")))
        return hidden

    def forward(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, in_dim) on `grid` -> (B, M, out_dim); see `hidden`."""
        projected: Tensor = self.last(self.hidden(features, grid))
        return projected

    def _check(self, features: Tensor, grid: tuple[int, int]) -> None:
        if features.ndim != 3 or features.shape[-1] != self.in_dim:
            raise ValueError(
                f"SafetyProjector expects features of shape (batch, patches, {self.in_dim}), got "
                f"{tuple(features.shape)}; pass the hidden states of the tower it was built for."
            )
        height, width = grid
        if height < 1 or width < 1 or height * width != features.shape[1]:
            raise ValueError(
                f"SafetyProjector got {features.shape[1]} patches for a grid of {height} x {width} = "
                f"{height * width}; drop the CLS and register tokens, or pass the grid (height, width) "
                "that the vision tower produced."
            )


def _stage(depth: int, in_dim: int, out_dim: int) -> RegStage:
    return RegStage(depth, in_dim, out_dim, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
