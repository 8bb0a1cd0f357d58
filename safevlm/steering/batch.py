"""What an LLM is about to be asked, and the same with other images: what methods compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from safevlm.backbone import Backbone, Inputs, encode, image_parts, make_chat, without_images
from safevlm.types import Chat


@dataclass(frozen=True, eq=False)
class Batch:
    """Conversations, their images, and the inputs made of them.

    Args:
        chats: checked conversations, one image part per image.
        images: per chat, its RGB images.
        inputs: of all chats, in order, padded.
    """

    chats: Sequence[Chat]
    images: Sequence[Sequence[Image.Image]]
    inputs: Inputs

    @classmethod
    def encode(
        cls,
        backbone: Backbone,
        prompts: Sequence[str | Chat],
        images: Sequence[Sequence[Image.Image]] | None = None,
    ) -> Batch:
        """Encode prompts for the plain backbone, padded on the left.

        Args:
            prompts: texts, or chats with one image part per image.
            images: per prompt, its RGB images; None: no prompt has any.

        Raises:
            ValueError: counts that do not fit, or a prompt longer than the context.
        """
        given = [()] * len(prompts) if images is None else images
        chats = [make_chat(prompt, len(own)) for prompt, own in zip(prompts, given, strict=True)]
        flat = [image for own in given for image in own]
        return cls(chats, given, encode(backbone, chats, flat, safety_tokens=0))

    def __len__(self) -> int:
        return len(self.chats)

    @property
    def mask(self) -> Tensor:
        """(B, P) bool: which of the prompts' positions are not padding."""
        return self.inputs.tensors["attention_mask"].bool()

    @property
    def with_images(self) -> list[int]:
        """The rows that have an image."""
        return [row for row, chat in enumerate(self.chats) if image_parts(chat)]

    def texts(self, backbone: Backbone, rows: Sequence[int]) -> Batch:
        """These rows without their images: image parts are left out, all else stays."""
        return Batch.encode(backbone, [without_images(self.chats[row]) for row in rows])

    def with_other(self, backbone: Backbone, rows: Sequence[int], image: Image.Image) -> Batch:
        """These rows with another image in the place of each of theirs."""
        others = [[image] * len(self.images[row]) for row in rows]
        return Batch.encode(backbone, [self.chats[row] for row in rows], others)


def last_positions(mask: Tensor) -> Tensor:
    """(B, P) bool -> (B,) int64: the last position of each row that is not padding, wherever padding stands."""
    positions: Tensor = torch.arange(mask.shape[1], device=mask.device) * mask
    return positions.argmax(dim=1)


def hidden(output: Any) -> Tensor:
    """The states (R, L, d) in a decoder layer's output, which is a tensor or begins with it."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
