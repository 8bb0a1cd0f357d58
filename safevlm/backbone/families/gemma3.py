"""Gemma 3: one picture per image (pan and scan off, as by default)."""

from __future__ import annotations

from typing import Any

from .family import Family


class Gemma3(Family):
    """`Gemma3ForConditionalGeneration`."""

    nested_images = True

    def opening(self, processor: Any) -> str:
        """The template writes the begin-of-image token, which the processor expands."""
        return str(processor.boi_token)

    def opening_id(self, processor: Any, config: Any) -> int:
        """The expansion starts with two line breaks."""
        ids = processor.tokenizer(processor.full_image_sequence, add_special_tokens=False)["input_ids"]
        return int(ids[0])
