"""Gemma 3: one view per image (pan and scan off, as by default)."""

from __future__ import annotations

from typing import Any

from .agree import agree
from .family import Family


class Gemma3(Family):
    """`Gemma3ForConditionalGeneration`."""

    nested_images = True
    one_length = True

    def complete(self, processor: Any, config: Any) -> None:
        """The number of an image's tokens, and their sequence."""
        count, tokenizer = int(config.mm_tokens_per_image), processor.tokenizer
        sequence = f"\n\n{tokenizer.boi_token}{tokenizer.image_token * count}{tokenizer.eoi_token}\n\n"
        agree(processor, {"image_seq_length": count, "full_image_sequence": sequence})

    def opening(self, processor: Any) -> str:
        """The template writes the begin-of-image token, which the processor expands."""
        return str(processor.boi_token)

    def opening_id(self, processor: Any, config: Any) -> int:
        """The expansion starts with two line breaks."""
        ids = processor.tokenizer(processor.full_image_sequence, add_special_tokens=False)["input_ids"]
        return int(ids[0])
