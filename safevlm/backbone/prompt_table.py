"""The head's view of prompts: the LLM's tokenizer and its input embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .fingerprint import FINGERPRINTED_ROWS, fingerprint
from .literal import Specials, take_literally


@dataclass(frozen=True)
class PromptTable:
    """Reads prompts as the safety head takes them.

    Args:
        tokenizer: the backbone's.
        weight: (vocabulary, text_dim) input embeddings, any float dtype.
    """

    tokenizer: Any
    weight: Tensor

    @property
    def fingerprint(self) -> tuple[float, ...]:
        """Of eight slices of the table's first 1024 rows: what tells one LLM from another of its width."""
        return fingerprint(self.weight[:FINGERPRINTED_ROWS].chunk(8))

    def embed(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, L, text_dim) in the table's dtype, and mask (B, L) bool, False at padding."""
        specials = Specials.of(self.tokenizer)
        texts = [take_literally(text, self.tokenizer, specials=specials) for text in prompts]
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        length = max(1, *(len(row) for row in rows)) if rows else 1
        ids = torch.zeros(len(rows), length, dtype=torch.long, device=self.weight.device)
        mask = torch.zeros(len(rows), length, dtype=torch.bool, device=self.weight.device)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = torch.tensor(values, dtype=torch.long)
            mask[row, : len(values)] = True
        return torch.nn.functional.embedding(ids, self.weight.detach()), mask

    def for_head(self, prompts: Sequence[str] | None, like: Tensor) -> dict[str, Tensor]:
        """The head's prompt arguments in `like`'s dtype and on its device; none where every prompt is empty."""
        if prompts is None or not any(prompts):
            return {}
        embeddings, mask = self.embed(prompts)
        return {"prompt_embeddings": embeddings.to(like), "prompt_mask": mask.to(like.device)}
