"""The one `safety` subtree: what is trained, saved and loaded together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .head import HeadOutput, SafetyHead
from .projector import SafetyProjector
from .tokens import SafetyTokens


@dataclass(frozen=True)
class SafetyDims:
    """The sizes of the safety modules; defaults are the paper's (arXiv 2405.13581).

    vision_dim: width of the vision features. LLaVA-1.5-7B: 1024 (CLIP ViT-L/14-336).
    dim: width of projector output, tokens and head; the language model's, as set B of the tokens
        is part of its input. LLaVA-1.5-7B: 4096.
    text_dim: width of the prompt's input embeddings; None for a head on images alone.
        LLaVA-1.5-7B: 4096.
    hidden_dim: channels of the projector's convolutions. 1024; the authors' code has 1088.
    depth: blocks in each of the projector's two stages.
    num_tokens: safety tokens in each of the two sets.
    num_levels: risk levels.
    num_categories: risk categories.
    num_heads: heads of the attention, a divisor of dim.
    pool_grid: (h, w) to which the projector pools; None keeps the tower's grid.
    """

    vision_dim: int
    dim: int
    text_dim: int | None = None
    hidden_dim: int = 1024
    depth: int = 3
    num_tokens: int = 64
    num_levels: int = 4
    num_categories: int = 7
    num_heads: int = 8
    pool_grid: tuple[int, int] | None = None


class SafetyModules(nn.Module):
    """Projector, tokens and head: vision features (and prompts) -> levels, categories, attention."""

    def __init__(self, dims: SafetyDims) -> None:
        super().__init__()
        self.projector = SafetyProjector(
            dims.vision_dim,
            dims.dim,
            hidden_dim=dims.hidden_dim,
            depth=dims.depth,
            pool_grid=dims.pool_grid,
        )
        self.tokens = SafetyTokens(dims.num_tokens, dims.dim)
        self.head = SafetyHead(
            dims.dim,
            num_levels=dims.num_levels,
            num_categories=dims.num_categories,
            num_heads=dims.num_heads,
            text_dim=dims.text_dim,
        )

    def forward(
        self,
        features: Tensor,
        grid: tuple[int, int],
        *,
        prompt_embeddings: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
    ) -> HeadOutput:
        """Score a batch of images from their vision features.

        Args:
            features: (B, N, vision_dim), the parameters' dtype; patches row by row, no CLS token.
            grid: (h, w) with h * w == N.
            prompt_embeddings: (B, L, text_dim), any float dtype; None for images alone.
            prompt_mask: (B, L) bool, True at the prompt's own tokens; None means all.
            feature_mask: (B, M) bool on the projector's output grid, False at patches that the
                attention leaves out. The convolutions before it still see them, so padding is not
                neutral here: batch images of one grid, and mask what should not be judged.
        """
        output: HeadOutput = self.head(
            self.projector(features, grid),
            self.tokens.head,
            prompt_embeddings=prompt_embeddings,
            prompt_mask=prompt_mask,
            feature_mask=feature_mask,
        )
        return output
