"""Models as transformers runs them, without the guard: what its cost is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .fold_norms import fold_batch_norms


class BareTower:
    """A Hugging Face CLIP tower, every layer of it run.

    Args:
        module: a `CLIPVisionModel`.
        layer: index of the hidden state that `features` gives.
    """

    def __init__(self, module: nn.Module, *, layer: int) -> None:
        self.module = module
        self.layer = layer

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixel values (B, 3, H, W) -> the last hidden state (B, 1 + h * w, dim)."""
        last: Tensor = self.module(pixel_values=pixels).last_hidden_state
        return last

    @torch.no_grad()
    def features(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch features (B, h * w, dim) of the layer, without class token, and their grid (h, w)."""
        states = self.module(pixel_values=pixels, output_hidden_states=True).hidden_states
        size = int(self.module.config.patch_size)  # type: ignore[union-attr, arg-type]
        return states[self.layer][:, 1:], (pixels.shape[-2] // size, pixels.shape[-1] // size)

    def fold_norms(self, image_size: int) -> None:
        """Nothing: transformers have no BatchNorm."""


class BareGridTower(BareTower):
    """A convolutional tower whose output is a grid.

    Args:
        module: gives a `last_hidden_state` (B, dim, h, w) for `pixel_values`.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, layer=-1)

    @torch.no_grad()
    def features(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Features (B, h * w, dim) of the output, and their grid (h, w)."""
        grid = self(pixels)
        return grid.flatten(2).transpose(1, 2), (grid.shape[-2], grid.shape[-1])

    def fold_norms(self, image_size: int) -> None:
        """Fold BatchNorms into convolutions and lay these out channels-last, as a scorer's tower is.

        Args:
            image_size: pixels on a side of the image that the fold is tried on.
        """
        like = next(self.module.parameters())
        fold_batch_norms(self.module, like.new_zeros(1, 3, image_size, image_size))
        self.module.to(memory_format=torch.channels_last)


@torch.no_grad()
def generate_bare(
    model: Any,
    processor: Any,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    **generation_kwargs: Any,
) -> list[str]:
    """Answer a batch of prompts with one image each: chat template, processor, generate, decode.

    Args:
        model: a vision-language model for generation, with its `processor`.
        generation_kwargs: as in `transformers.generate`.
    """
    chats = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        for prompt in prompts
    ]
    texts = [
        processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats
    ]
    inputs = processor(text=texts, images=list(images), padding=True, return_tensors="pt")
    made = model.generate(**inputs.to(model.device, model.dtype), **generation_kwargs)
    answers: list[str] = processor.batch_decode(
        made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return answers
