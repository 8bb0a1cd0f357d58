"""Tiny models of the real classes: shrunk configs, random weights, real processors."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from safevlm import SafetyConfig, SafeVLM, Taxonomy
from safevlm.backbone import Backbone, wrap_backbone

IMAGE_SIZE, PATCH_SIZE = 16, 4
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ 'USER: ' if m['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for p in m['content'] %}{{ '<image>\n' if p['type'] == 'image' else p['text'] }}{% endfor %}"
    "{{ ' ' if m['role'] == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, no merges: every text is its bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>", "<image>"]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )


def tiny_processor() -> LlavaProcessor:
    """The real processor class at 16 px, patches of 4."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_llava(seed: int = 0, *, tower: str = "clip") -> Any:
    """A two-layer LLaVA with random weights; `tower` is clip or siglip."""
    torch.manual_seed(seed)
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    }
    text = LlamaConfig(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.2,
    )
    clip = tower == "clip"
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision) if clip else SiglipVisionConfig(**vision),
        text_config=text,
        image_token_id=3,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default" if clip else "full",
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
    )
    return LlavaForConditionalGeneration(config).eval()


def tiny_backbone(seed: int = 0, *, tower: str = "clip") -> Backbone:
    """A frozen tiny LLaVA with its processor."""
    processor = tiny_processor()
    if tower == "siglip":
        processor.vision_feature_select_strategy = "full"
        processor.num_additional_image_tokens = 0
    return wrap_backbone(tiny_llava(seed, tower=tower), processor, name="tiny")


def tiny_config(**changes: Any) -> SafetyConfig:
    """Small modules with the paper's taxonomy."""
    values: dict[str, Any] = {"hidden_dim": 16, "depth": 1, "num_tokens": 3, "num_heads": 4} | changes
    return SafetyConfig(values.pop("taxonomy", Taxonomy.preset("safevlm")), **values)


def tiny_guard(seed: int = 0, *, tower: str = "clip", **changes: Any) -> SafeVLM:
    """An attached guard whose modules are random, and wide enough to matter; they stand for trained ones."""
    guard = SafeVLM.attach(tiny_backbone(seed, tower=tower), tiny_config(**changes))
    guard.config = guard.config.with_changes(untrained=False)
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in guard.safety.parameters():
            parameter.normal_(std=0.3)
    return guard


def picture(seed: int = 0, size: tuple[int, int] = (20, 24)) -> Image.Image:
    """Random RGB noise, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())
