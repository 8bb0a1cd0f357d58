"""How many positions of the context a prompt takes, without making its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from PIL import Image

from .answers import answer_ids
from .chats import make_chat
from .load_backbone import Backbone
from .prompts import encode


class PromptLengths:
    """Counts the tokens of prompts with images, and of their answers.

    Texts are tokenized; the tokens of an image are counted once for each size, and only once where the model gives
    every image as many.

    Args:
        backbone: whose processor and tokenizer count.
        safety_tokens: placeholders before each image.
    """

    def __init__(self, backbone: Backbone, *, safety_tokens: int) -> None:
        self.backbone, self.safety_tokens = backbone, safety_tokens
        self._counted: dict[tuple[int, int], int] = {}

    def __call__(
        self, chat: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]], answer: str = ""
    ) -> tuple[int, int]:
        """Positions of a checked chat's prompt with its images of these (width, height), and of its answer.

        Raises:
            ValueError: a text that cannot be taken literally.
        """
        prompt = self._text_tokens(chat) + sum(self.image_tokens(size) for size in sizes)
        return prompt, len(answer_ids(self.backbone, chat, answer)) if answer else 0

    def at_most(self, texts: Sequence[str], image_tokens: int) -> int | None:
        """A bound for a chat of one message with these texts, found without tokenizing; None where there is none.

        ASCII text gives no more tokens than it has characters, with the spaces that break up special tokens
        at most twice as many.
        """
        if not all(text.isascii() for text in texts):
            return None
        return self._frame + 2 * sum(map(len, texts)) + image_tokens

    def image_tokens(self, size: tuple[int, int]) -> int:
        """Positions of an image of a (width, height), its safety tokens included."""
        if self.backbone.family.one_length:
            size = (64, 64)
        if size not in self._counted:
            self._counted[size] = self._count(size)
        return self._counted[size]

    @cached_property
    def _frame(self) -> int:
        """What the template writes around a prompt and its answer, with room for the borders' tokens."""
        chat = make_chat("x", 1)
        return self._text_tokens(chat) + len(answer_ids(self.backbone, chat, "x")) + 16

    def _count(self, size: tuple[int, int]) -> int:
        chat = make_chat("x", 1)
        made = encode(self.backbone, [chat], [Image.new("RGB", size)], safety_tokens=0)
        whole = int(made.tensors["attention_mask"].sum())
        return whole - self._text_tokens(chat) + self.safety_tokens

    def _text_tokens(self, chat: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of the prompt as the template writes it, each image's opening counted as it stands there."""
        tokenizer, text = self.backbone.tokenizer, self.backbone.renderer(chat).text
        alone = self.backbone.family.text_alone(text, tokenizer)
        if alone is not None:
            return len(tokenizer(alone, add_special_tokens=False)["input_ids"])
        bos = tokenizer.bos_token
        begun = bos is not None and text.startswith(bos)
        return len(tokenizer(text, add_special_tokens=not begun)["input_ids"])
