"""Exact folding of the safety modules for inference: the same numbers, most per-patch work gone.

One query makes attention pooling linear in its values. With z the projector's hidden state of a
patch, x = W2 z + b2 its projected feature and g = W_k^T q a head's query seen from x:

    score   q . (W_k x)             =  (W2^T g) . z + g . b2
    values  sum_m a_m (W_v x_m + b_v) =  W_v (W2 sum_m a_m z_m + (sum_m a_m) b2) + b_v

so W2, W_k and W_v act once per head instead of once per patch; a patch costs the convolutions, the
projector's first Linear and one dot product per head. The safety tokens share the softmax: their
scores are g . t, which is why g . b2 must stay in the patches' scores, and they join the pooled
value before W_v. The attention weights sum to 1, so b_v is added once.
For LLaVA-1.5-7B (576 patches): 50 M of the 71 M multiplications of a patch go (W2, W_k, W_v: 4096^2 each).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .head import HeadOutput, attend
from .safety import SafetyModules


class FoldedScorer(nn.Module):
    """`SafetyModules.forward`, folded. Build it with `fold`.

    Inference only (no gradients). It holds the modules it was built from, shared and not copied, so
    moving it with `.to(...)` moves them too, and it must be built again when `folded_weights` change.
    Its own tensors, for images without a prompt, are not part of its state dict:
    patch_keys (1, heads, dim), patch_bias (1, heads, 1), token_scores (1, heads, T).
    """

    patch_keys: Tensor
    patch_bias: Tensor
    token_scores: Tensor

    def __init__(self, safety: SafetyModules) -> None:
        super().__init__()
        self.safety = safety
        folded = _fold_constant_query(safety)
        for name, tensor in zip(("patch_keys", "patch_bias", "token_scores"), folded, strict=True):
            self.register_buffer(name, tensor, persistent=False)

    def forward(
        self,
        features: Tensor,
        grid: tuple[int, int],
        *,
        prompt_embeddings: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
    ) -> HeadOutput:
        """The arguments and the result of `SafetyModules.forward`, equal to 1e-5 in float32."""
        return self.pool(
            self.hidden(features, grid),
            grid,
            prompt_embeddings=prompt_embeddings,
            prompt_mask=prompt_mask,
            feature_mask=feature_mask,
        )

    @torch.no_grad()
    def hidden(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """What a patch costs and no prompt changes: `SafetyProjector.hidden`."""
        return self.safety.projector.hidden(features, grid)

    @torch.no_grad()
    def pool(
        self,
        hidden: Tensor,
        grid: tuple[int, int],
        *,
        prompt_embeddings: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        feature_mask: Tensor | None = None,
    ) -> HeadOutput:
        """The rest of `forward`, from hidden states (B, M, out_dim) of features on `grid`."""
        head, last, tokens = self.safety.head, self.safety.projector.last, self.safety.tokens.head
        keys, bias, token_scores = self.patch_keys, self.patch_bias, self.token_scores
        if prompt_embeddings is not None or prompt_mask is not None:
            query = head.queries(
                hidden.shape[0], prompt_embeddings=prompt_embeddings, prompt_mask=prompt_mask
            )
            keys, bias, token_scores = _fold_query(query, head.key.weight, last.weight, last.bias, tokens)
        token_weights, patch_weights = attend(
            token_scores, keys @ hidden.mT + bias, feature_mask=feature_mask
        )
        pooled = F.linear(patch_weights.to(hidden.dtype) @ hidden, last.weight)
        patch_mass = patch_weights.sum(dim=-1, keepdim=True).to(hidden.dtype)
        memory = pooled + patch_mass * last.bias + token_weights.to(tokens.dtype) @ tokens
        return head.classify(_per_head(memory, head.value), patch_weights)


def fold(modules: SafetyModules) -> FoldedScorer:
    """The folded scorer of `modules`, whose weights it shares; build it again when `folded_weights` change."""
    return FoldedScorer(modules)


def folded_weights(modules: SafetyModules) -> tuple[Tensor, ...]:
    """The weights that `fold` computes from; it must be called again when one of them changes."""
    head, last = modules.head, modules.projector.last
    query = (head.query_vector, head.query.weight, head.query.bias)
    return *query, head.key.weight, last.weight, last.bias, modules.tokens.head


class KeptFold:
    """The fold of modules that may change: called, it gives the `FoldedScorer` of what they are now.

    It is built again after a weight that was folded was moved or changed. Picklable; compiled code stays in its process.
    """

    def __init__(self, modules: SafetyModules) -> None:
        self._modules = modules
        self._compile_options: dict[str, Any] | None = None
        self._held: tuple[tuple[int, ...], FoldedScorer] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compile_options": None, "_held": None}

    def compile(self, **options: Any) -> None:
        """Compile the projector with `torch.compile`, whose arguments these are; the modules stay as they are."""
        self._compile_options, self._held = options, None

    def __call__(self) -> FoldedScorer:
        """The folded modules."""
        state = tuple(
            number
            for weight in folded_weights(self._modules)  # not all: looking at each costs as much as the head
            for number in (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        )
        held = self._held  # another thread may replace it meanwhile
        if held is None or held[0] != state:
            folded = fold(self._modules)
            if self._compile_options is not None:
                folded.hidden = torch.compile(folded.hidden, **self._compile_options)  # type: ignore[method-assign]
            self._held = held = state, folded
        return held[1]


def _fold_query(
    query: Tensor, key_weight: Tensor, last_weight: Tensor, last_bias: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled queries (B, heads, d) -> keys (B, heads, dim), bias (B, heads, 1), token scores."""
    per_head = rearrange(key_weight, "(n d) k -> n d k", n=query.shape[1])
    seen = torch.einsum("bnd,ndk->bnk", query, per_head)
    return seen @ last_weight, (seen @ last_bias).unsqueeze(-1), seen @ tokens.mT


def _fold_constant_query(safety: SafetyModules) -> tuple[Tensor, Tensor, Tensor]:
    """`_fold_query` of the learned query alone: in float64 on the CPU, then the weights' dtype and device."""
    head, last, tokens = safety.head, safety.projector.last, safety.tokens.head

    def exact(tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu", torch.float64)

    query = F.linear(exact(head.query_vector), exact(head.query.weight), exact(head.query.bias)) * head.scale
    keys, bias, scores = _fold_query(
        rearrange(query, "b (n d) -> b n d", n=head.num_heads),
        exact(head.key.weight),
        exact(last.weight),
        exact(last.bias),
        exact(tokens),
    )
    return keys.to(tokens), bias.to(tokens), scores.to(tokens)


def _per_head(pooled: Tensor, linear: nn.Linear) -> Tensor:
    """Each head's rows of `linear` on that head's input: (B, heads, dim) -> (B, heads, dim / heads)."""
    heads = pooled.shape[1]
    weight = rearrange(linear.weight, "(n d) k -> n d k", n=heads)
    return torch.einsum("bnk,ndk->bnd", pooled, weight) + rearrange(linear.bias, "(n d) -> n d", n=heads)
