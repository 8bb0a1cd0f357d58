"""Any image-text-to-text model of transformers as it is: asked questions, without towers, tokens or families."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from safevlm.errors import BackboneError

from .freeze import freeze
from .hub import HubOptions, explain
from .placement import on_cpu


class PlainModel:
    """A model and its processor, which answer prompts.

    Args:
        model: of `AutoModelForImageTextToText`, or one with its `generate`.
        processor: its own, with a chat template.
        name: for messages.

    Raises:
        BackboneError: the processor has no chat template or no tokenizer.
    """

    def __init__(self, model: Any, processor: Any, *, name: str) -> None:
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or not (
            getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
        ):
            raise BackboneError(
                f"{name}: its processor has no chat template; serve the model, and measure it by its address"
            )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "left"
        self.model, self.processor, self.name = freeze(model), processor, name

    @torch.no_grad()
    def answer(
        self, images: Sequence[Image.Image | None], prompts: Sequence[str], *, max_new_tokens: int
    ) -> list[str]:
        """Answer a batch of prompts, each with one RGB image in front or none; greedy.

        Prompts with and without images are batches of their own, as processors take no mixture.
        """
        texts = [""] * len(prompts)
        for with_image in (True, False):
            rows = [row for row, image in enumerate(images) if (image is not None) == with_image]
            if rows:
                found = self._answer(
                    [images[row] for row in rows], [prompts[row] for row in rows], max_new_tokens
                )
                for row, text in zip(rows, found, strict=True):
                    texts[row] = text
        return texts

    def _answer(self, images: Sequence[Any], prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        tokenizer = self.processor.tokenizer
        chats = [
            _chat(_literal(prompt, tokenizer), image) for prompt, image in zip(prompts, images, strict=True)
        ]
        inputs = self.processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.model.device, self.model.dtype)  # fmt: skip
        made = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers = made[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def load_plain(name: str | Path, *, device_map: Any = None, hub: HubOptions | None = None) -> PlainModel:
    """Load any image-text-to-text model that transformers knows, and its processor; code that it brings is never run.

    Args:
        name: hub id or folder; safetensors alone are read.
        device_map: as in `transformers.from_pretrained`; on the CPU the weights are float32.

    Raises:
        BackboneError: the name is not found, the hub cannot be reached, or it is no such model.
    """
    options = {key: value for key, value in vars(hub or HubOptions()).items() if key != "trust_remote_code"}
    if device_map is not None:
        options["device_map"] = device_map
    dtype = torch.float32 if on_cpu(device_map) else "auto"
    with explain(name):
        processor = AutoProcessor.from_pretrained(
            name, **{k: v for k, v in options.items() if k != "device_map"}
        )
        model = AutoModelForImageTextToText.from_pretrained(
            name, use_safetensors=True, dtype=dtype, **options
        )
    return PlainModel(model, processor, name=str(name))


def _chat(prompt: str, image: Image.Image | None) -> list[dict[str, Any]]:
    shown = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]


def _literal(prompt: str, tokenizer: Any) -> str:
    """The prompt with special tokens broken up by a space, so that no concept's name becomes one."""
    for token in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
        prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
    return prompt
