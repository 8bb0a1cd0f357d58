"""Safety tokens in the LLM's input: placeholder positions before each image, filled at the embedding layer.

The family's own merging, masks, positions and cache see ordinary tokens (wall 3 of the design): the
placeholder is a special token of the backbone's own vocabulary, and only positions that the
library put there itself are ever filled, so no text can forge or shift them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from safevlm.errors import BackboneError


def placeholder_token(tokenizer: Any) -> str:
    """The special token that stands for a safety token until the embedding layer."""
    for token in (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token):
        if token is not None:
            return str(token)
    raise BackboneError(
        "the tokenizer has neither a pad, an eos nor an unk token to stand for safety tokens; "
        "set `tokenizer.pad_token`"
    )


def find_placeholders(
    input_ids: Tensor, *, images: int, count: int, placeholder_id: int, opening_id: int
) -> Tensor:
    """Positions of the `count` placeholders directly before each image's tokens.

    Args:
        input_ids: (B, L) int64.
        images: in the whole batch.
        count: placeholders before each image, at least 1.
        opening_id: the first token of an image.

    Returns:
        (B, L) bool.
    """
    starts = torch.zeros_like(input_ids, dtype=torch.bool)
    starts[:, 1:] = (input_ids[:, 1:] == opening_id) & (input_ids[:, :-1] == placeholder_id)
    mask = torch.zeros_like(starts)
    for row, start in starts.nonzero().tolist():
        mask[row, start - count : start] = True
    found = input_ids[mask]
    if len(found) != count * images or not bool((found == placeholder_id).all()):
        raise BackboneError(
            "safety tokens were displaced in the prompt; the chat template changes special tokens"
        )
    return mask


@contextmanager
def fill_placeholders(embedding: nn.Module, tokens: Tensor, mask: Tensor) -> Iterator[None]:
    """Within the context the embedding layer gives `tokens` at the positions of `mask`.

    Args:
        embedding: the LLM's input embedding layer.
        tokens: (count, dim) safety tokens, any float dtype; gradients flow to them.
        mask: (B, L) bool, a multiple of `count` positions per row. Longer inputs (generation without
            a cache) and repeated rows (beams) are filled alike; shorter ones (a decoding step) are
            left as they are.
    """
    length = mask.shape[1]
    seen: list[bool] = []
    order = (mask.long().cumsum(dim=1) - 1).remainder(tokens.shape[0])

    def hook(_: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        ids = args[0]
        if ids.ndim != 2 or ids.shape[1] < length:
            return embedded
        seen.append(True)
        repeats = ids.shape[0] // mask.shape[0]
        where = mask.repeat_interleave(repeats, dim=0).to(embedded.device).unsqueeze(-1)
        which = order.repeat_interleave(repeats, dim=0).to(embedded.device)
        filled = torch.where(where, tokens[which].to(embedded), embedded[:, :length])
        return torch.cat([filled, embedded[:, length:]], dim=1)

    handle = embedding.register_forward_hook(hook)
    try:
        yield
        if not seen:
            raise BackboneError(
                "the safety tokens were never put in: the prompt reached the embedding layer in pieces; "
                "generate without `prefill_chunk_size`"
            )
    finally:
        handle.remove()
