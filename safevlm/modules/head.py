"""The safety head: one query attends to safety tokens and image patches, two classifiers read it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ._checks import positive


class HeadOutput(NamedTuple):
    """What the head says about a batch of B images with M patches each; all float32.

    level_logits: (B, num_levels), unbounded.
    category_logits: (B, num_categories), unbounded.
    attention: (B, M) in [0, 1], mean over the heads; 1 - its sum is the share of the safety tokens.
    """

    level_logits: Tensor
    category_logits: Tensor
    attention: Tensor


class SafetyHead(nn.Module):
    """Cross-attention of one query over [tokens ; projected features], then two linear classifiers.

    The query is a learned vector; where there is a prompt, a Linear of the mean of its input
    embeddings is added. That Linear has no bias, so that no prompt and an empty prompt are the
    same, and it starts at zero, so training starts from the image-only head. The keys
    have no bias: it would add one number to every score of a head, and softmax cancels it.
    The LayerNorm before the classifiers is ours; it makes the small outputs of a fresh attention
    trainable, and stands behind the pooling, where folding does not care.

    Args:
        dim: width of the tokens and of the projected features (LLaVA-1.5-7B: 4096).
        num_levels: risk levels; 4 in the paper.
        num_categories: risk categories; 7 in the paper.
        num_heads: attention heads, a divisor of `dim`; 8 in the paper.
        text_dim: width of the prompt's input embeddings; None builds a head for images alone.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_levels: int,
        num_categories: int,
        num_heads: int = 8,
        text_dim: int | None = None,
    ) -> None:
        super().__init__()
        positive(
            "SafetyHead", dim=dim, num_levels=num_levels, num_categories=num_categories, num_heads=num_heads
        )
        if dim % num_heads:
            raise ValueError(
                f"SafetyHead: dim {dim} does not divide into {num_heads} heads; "
                "choose num_heads among its divisors."
            )
        self.dim = dim
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.query_vector = nn.Parameter(torch.empty(1, dim).normal_(std=0.02))
        self.prompt: nn.Linear | None = None
        if text_dim is not None:
            positive("SafetyHead", text_dim=text_dim)
            self.prompt = nn.Linear(text_dim, dim, bias=False)
            nn.init.zeros_(self.prompt.weight)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.level = nn.Linear(dim, num_levels)
        self.category = nn.Linear(dim, num_categories)

    def forward(
        self,
        projected: Tensor,
        tokens: Tensor,
        *,
        prompt_embeddings: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
    ) -> HeadOutput:
        """Score a batch of images, each alone or together with its prompt.

        Args:
            projected: (B, M, dim), the parameters' dtype: the projector's output.
            tokens: (T, dim), the parameters' dtype: set A of the safety tokens.
            prompt_embeddings: (B, L, text_dim), any float dtype: input embeddings of the prompts.
            prompt_mask: (B, L) bool, True at the prompt's own tokens; None means all. A row without
                True is an image alone.
            feature_mask: (B, M) bool, True at real patches, False at padding; None means all. A row
                without True attends to the tokens alone.
        """
        self._check(projected, tokens)
        query = self.queries(projected.shape[0], prompt_embeddings=prompt_embeddings, prompt_mask=prompt_mask)
        memory = torch.cat([tokens.expand(projected.shape[0], -1, -1), projected], dim=1)
        key = rearrange(self.key(memory), "b m (n d) -> b n d m", n=self.num_heads)
        value = rearrange(self.value(memory), "b m (n d) -> b n m d", n=self.num_heads)
        scores = (query.unsqueeze(2) @ key).squeeze(2)
        count = tokens.shape[0]
        token_weights, patch_weights = attend(
            scores[..., :count], scores[..., count:], feature_mask=feature_mask
        )
        weights = torch.cat([token_weights, patch_weights], dim=-1).to(value.dtype)
        return self.classify((weights.unsqueeze(2) @ value).squeeze(2), patch_weights)

    def queries(
        self, batch: int, *, prompt_embeddings: Tensor | None = None, prompt_mask: Tensor | None = None
    ) -> Tensor:
        """Scaled queries per head, (B, heads, dim / heads); (1, ...) without prompts, for broadcasting."""
        query: Tensor = self.query_vector
        if prompt_embeddings is not None:
            if self.prompt is None:
                raise ValueError(
                    "SafetyHead was built for images alone (text_dim=None) and got prompt embeddings; "
                    "pass none, or build it with the text_dim of the language model."
                )
            mean = _prompt_mean(prompt_embeddings, prompt_mask, (batch, self.prompt.in_features))
            query = query + self.prompt(mean.to(self.prompt.weight.dtype))
        elif prompt_mask is not None:
            raise ValueError("SafetyHead got a prompt_mask without prompt_embeddings; pass both or neither.")
        query = self.query(query) * self.scale
        return rearrange(query, "b (n d) -> b n d", n=self.num_heads)

    def classify(self, pooled: Tensor, patch_weights: Tensor) -> HeadOutput:
        """Values pooled per head, (B, heads, dim / heads), and their weights, (B, heads, M) -> the output."""
        state = self.norm(self.out(rearrange(pooled, "b n d -> b (n d)")))
        return HeadOutput(self.level(state).float(), self.category(state).float(), patch_weights.mean(dim=1))

    def _check(self, projected: Tensor, tokens: Tensor) -> None:
        if projected.ndim != 3 or tokens.ndim != 2 or not projected.shape[-1] == tokens.shape[-1] == self.dim:
            raise ValueError(
                f"SafetyHead expects projected features (batch, patches, {self.dim}) and tokens "
                f"(count, {self.dim}), got {tuple(projected.shape)} and {tuple(tokens.shape)}; "
                "build projector, tokens and head with one dim."
            )


def attend(
    token_scores: Tensor, patch_scores: Tensor, *, feature_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One softmax, in float32, over tokens and patches.

    Args:
        token_scores: (B or 1, heads, T), any float dtype.
        patch_scores: (B, heads, M), any float dtype.
        feature_mask: (B, M) bool, False at patches to leave out.

    Returns:
        Weights (B, heads, T) and (B, heads, M), float32, summing to 1 together.
    """
    batch, _, patches = patch_scores.shape
    if feature_mask is not None:
        _check_mask("feature_mask", feature_mask, (batch, patches))
        patch_scores = patch_scores.masked_fill(~feature_mask.unsqueeze(1), -torch.inf)
    scores = torch.cat([token_scores.expand(batch, -1, -1), patch_scores], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32)
    tokens = token_scores.shape[-1]
    return weights[..., :tokens], weights[..., tokens:]


def _prompt_mean(embeddings: Tensor, mask: Tensor | None, expected: tuple[int, int]) -> Tensor:
    """(B, L, text_dim) -> (B, text_dim) float32: mean where the mask is True, 0 where it never is."""
    batch, text_dim = expected
    if embeddings.ndim != 3 or embeddings.shape[0] != batch or embeddings.shape[2] != text_dim:
        raise ValueError(
            f"prompt_embeddings must have shape ({batch}, length, {text_dim}), got "
            f"{tuple(embeddings.shape)}; pass the language model's input embeddings, one padded prompt "
            "per image."
        )
    if mask is None:
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
    _check_mask("prompt_mask", mask, (batch, embeddings.shape[1]))
    total = embeddings.masked_fill(~mask.unsqueeze(-1), 0).sum(dim=1, dtype=torch.float32)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def _check_mask(name: str, mask: Tensor, shape: tuple[int, int]) -> None:
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(
            f"{name} must be bool of shape {shape}, got {mask.dtype} of shape {tuple(mask.shape)}; "
            "convert a 0/1 attention mask with .bool()."
        )
