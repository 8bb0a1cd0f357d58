"""Tiny models of every family: real classes, real processors, shrunk configs, random weights."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    FastVlmConfig,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    TimmWrapperConfig,
    VipLlavaConfig,
)

from safevlm.backbone import Backbone, wrap_backbone
from tests.tiny import CHAT_TEMPLATE, picture

SIZE, PATCH, DIM = 16, 4, 32
VOCABULARY = 320
VISION: dict[str, Any] = {
    "hidden_size": DIM,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": PATCH,
}
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": DIM,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
SQUARE = {"height": SIZE, "width": SIZE}
GREEDY = {"max_new_tokens": 5, "do_sample": False}
PROMPTS = ["Hi", "What is on this picture?", "And what are these two?"]
IMAGES = [picture(1, (20, 24)), picture(2, (40, 18)), [picture(3, (30, 30)), picture(4, (16, 50))]]
PINPOINTS = [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Byte-level, no merges; `named` special tokens become attributes."""
    known = ["<pad>", "<s>", "</s>", "<image>", *special, *(t for t in named.values() if t != "<image>")]
    vocabulary = {
        t: i for i, t in enumerate(dict.fromkeys([*known, *sorted(pre_tokenizers.ByteLevel.alphabet())]))
    }
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    rest = [token for token in known[3:] if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left",
        extra_special_tokens={**named, **{f"special_{i}_token": token for i, token in enumerate(rest)}},
    )  # fmt: skip


def _template(image: str) -> str:
    return CHAT_TEMPLATE.replace("<image>\n", image)


def _llava_like(kind: str) -> Any:
    vision: Any = CLIPVisionConfig(**VISION)
    siglip = kind == "llava_onevision"
    if siglip:
        vision = SiglipVisionConfig(**VISION)
    config_class = {
        "llava": LlavaConfig, "vipllava": VipLlavaConfig, "llava_next": LlavaNextConfig,
        "llava_onevision": LlavaOnevisionConfig,
    }[kind]  # fmt: skip
    options: dict[str, Any] = {"image_token_id": 3, "image_token_index": 3}
    if kind == "vipllava":
        options["vision_feature_layers"] = [-2, -1]
    else:
        options |= {"vision_feature_layer": -1 if siglip else -2}
        options |= {"vision_feature_select_strategy": "full" if siglip else "default"}
    if kind in ("llava_next", "llava_onevision"):
        options["image_grid_pinpoints"] = PINPOINTS
    from transformers import LlamaConfig

    config = config_class(vision_config=vision, text_config=LlamaConfig(**TEXT), **options)
    common: dict[str, Any] = {"patch_size": PATCH, "chat_template": CHAT_TEMPLATE}
    common |= {"num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    if kind == "llava_next":
        images = LlavaNextImageProcessor(
            size={"shortest_edge": SIZE}, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS
        )
        return config, LlavaNextProcessor(image_processor=images, tokenizer=tokenizer(), **common)
    if siglip:
        return config, LlavaOnevisionProcessor(
            image_processor=LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=PINPOINTS),
            video_processor=LlavaOnevisionVideoProcessor(size=SQUARE), tokenizer=tokenizer("<video>"),
            num_image_tokens=(SIZE // PATCH) ** 2, vision_feature_select_strategy="full", chat_template=CHAT_TEMPLATE,
        )  # fmt: skip
    images = CLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    return config, LlavaProcessor(image_processor=images, tokenizer=tokenizer(), **common)


def _paligemma() -> Any:
    text = {**TEXT, "model_type": "gemma"}
    config = PaliGemmaConfig(
        vision_config={**VISION, "model_type": "siglip_vision_model", "projection_dim": DIM}, text_config=text,
        image_token_index=3, projection_dim=DIM, hidden_size=DIM,
    )  # fmt: skip
    images = SiglipImageProcessor(size=SQUARE)
    images.image_seq_length = (SIZE // PATCH) ** 2
    words = tokenizer(image_token="<image>")
    return config, PaliGemmaProcessor(image_processor=images, tokenizer=words)


def _gemma3() -> Any:
    config = Gemma3Config(
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        text_config={**TEXT, "model_type": "gemma3_text", "sliding_window": 64},
        mm_tokens_per_image=4, image_token_index=3, boi_token_index=4, eoi_token_index=5,
    )  # fmt: skip
    words = tokenizer(boi_token="<boi>", eoi_token="<eoi>", image_token="<image>")
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=SQUARE), tokenizer=words, image_seq_length=4,
        chat_template=_template("<boi>"),
    )  # fmt: skip
    return config, processor


EFFICIENTNET: dict[str, Any] = {"architecture": "test_efficientnet", "hidden_size": 256}
FASTVIT: dict[str, Any] = {
    "architecture": "fastvit_mci0",
    "hidden_size": 128,
    "model_args": {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 64)},
}


def fast_vlm_parts(tower: dict[str, Any] = EFFICIENTNET) -> Any:
    """Config and processor of a FastVLM with a timm tower of stride 32."""
    config = FastVlmConfig(
        vision_config=TimmWrapperConfig(**tower, do_pooling=False).to_dict(),
        text_config={**TEXT, "model_type": "llama"}, image_token_index=3, image_seq_length=16,
    )  # fmt: skip
    square = {"height": 128, "width": 128}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=square, crop_size=square), tokenizer=tokenizer(), patch_size=32,
        num_additional_image_tokens=0, vision_feature_select_strategy="full", chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    return config, processor


def _internvl() -> Any:
    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<image>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config={
            **VISION, "model_type": "internvl_vision", "image_size": [SIZE, SIZE], "patch_size": [PATCH, PATCH],
        },
        text_config={**TEXT, "model_type": "qwen2"}, image_token_id=3, image_seq_length=4,
    )  # fmt: skip
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer=words, video_processor=InternVLVideoProcessor(size=SQUARE), image_seq_length=4,
        chat_template=_template("<image>\n"),
    )  # fmt: skip
    return config, processor


def _idefics3(kind: str) -> Any:
    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    words = tokenizer(
        *tiles, "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
        fake_image_token="<fake_token_around_image>", global_image_token="<global-img>", image_token="<image>",
        end_of_utterance_token="<end_of_utterance>", video_token="<video>",
    )  # fmt: skip
    config_class = SmolVLMConfig if kind == "smolvlm" else Idefics3Config
    config = config_class(
        vision_config={**VISION, "model_type": f"{kind}_vision"}, text_config={**TEXT, "model_type": "llama"},
        image_token_id=3, scale_factor=2, pad_token_id=0,
    )  # fmt: skip
    options: dict[str, Any] = {"size": {"longest_edge": 2 * SIZE}, "max_image_size": {"longest_edge": SIZE}}
    if kind == "smolvlm":
        processor: Any = SmolVLMProcessor(
            image_processor=SmolVLMImageProcessor(**options), tokenizer=words, image_seq_len=4,
            video_processor=SmolVLMVideoProcessor(**options), chat_template=_template("<image>"),
        )  # fmt: skip
    else:
        processor = Idefics3Processor(
            image_processor=Idefics3ImageProcessor(**options), tokenizer=words, image_seq_len=4,
            chat_template=_template("<image>"),
        )  # fmt: skip
    return config, processor


def _qwen(kind: str) -> Any:
    special = ["<|vision_start|>", "<|vision_end|>", "<video>"]
    words = tokenizer(*special, image_token="<image>", video_token="<video>")
    ids = {token: words.convert_tokens_to_ids(token) for token in special}
    text = {
        **TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }  # fmt: skip
    options: dict[str, Any] = {
        "image_token_id": 3, "video_token_id": ids["<video>"], "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip
    common = {
        "depth": 2,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if kind == "qwen2_vl":
        config: Any = Qwen2VLConfig(
            vision_config={**common, "embed_dim": DIM, "hidden_size": DIM, "mlp_ratio": 2},
            text_config=text,
            **options,
        )
    elif kind == "qwen2_5_vl":
        config = Qwen2_5_VLConfig(
            vision_config={
                **common, "hidden_size": DIM, "out_hidden_size": DIM, "intermediate_size": 48, "window_size": 16,
                "fullatt_block_indexes": [1],
            },
            text_config=text, **options,
        )  # fmt: skip
    else:
        config = Qwen3VLConfig(
            vision_config={
                **common, "hidden_size": DIM, "out_hidden_size": DIM, "intermediate_size": 48,
                "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
            },
            text_config=text, **options,
        )  # fmt: skip
    limits = {"size": {"shortest_edge": 64, "longest_edge": 1024}, "patch_size": PATCH, "merge_size": 2}
    images = Qwen2VLImageProcessor(**limits, temporal_patch_size=2)
    template = _template("<|vision_start|><image><|vision_end|>")
    if kind == "qwen3_vl":
        from transformers import Qwen3VLVideoProcessor

        return config, Qwen3VLProcessor(
            image_processor=images,
            tokenizer=words,
            video_processor=Qwen3VLVideoProcessor(),
            chat_template=template,
        )
    processor_class = Qwen2VLProcessor if kind == "qwen2_vl" else Qwen2_5_VLProcessor
    return config, processor_class(
        image_processor=images,
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=template,
    )


def family_parts(kind: str) -> Any:
    """Config and processor of a `model_type`."""
    if kind in ("llava", "vipllava", "llava_next", "llava_onevision"):
        return _llava_like(kind)
    if kind in ("idefics3", "smolvlm"):
        return _idefics3(kind)
    if kind.startswith("qwen"):
        return _qwen(kind)
    return {"paligemma": _paligemma, "gemma3": _gemma3, "fast_vlm": fast_vlm_parts, "internvl": _internvl}[
        kind
    ]()


def settle_norms(tower: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Give BatchNorms the statistics of some pictures, so that random weights tell pictures apart."""
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean
    with torch.no_grad():
        tower.train()(pixels)
    tower.eval()


def family_backbone(kind: str, seed: int = 0, parts: Any = None) -> Backbone:
    """A frozen tiny model of a family with its real processor, or of other `parts` of it."""
    config, processor = parts or family_parts(kind)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).eval()
    if kind == "fast_vlm":
        settle_norms(model.model.vision_tower, torch.randn(16, 3, 128, 128))
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    return wrap_backbone(model, processor, name=f"tiny-{kind}")


def plain_inputs(backbone: Backbone, prompts: list[str], images: list[Any]) -> Any:
    """What a user of transformers alone would write."""
    texts, nested = [], []
    for prompt, entry in zip(prompts, images, strict=True):
        given = entry if isinstance(entry, list) else [entry]
        chat = [
            {
                "role": "user",
                "content": [*({"type": "image"} for _ in given), {"type": "text", "text": prompt}],
            }
        ]
        template = backbone.processor.chat_template or backbone.family.chat_template
        texts.append(
            backbone.processor.apply_chat_template(
                chat, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )
        nested.append(given)
    flat = [image for given in nested for image in given]
    given = nested if backbone.family.nested_images else flat
    made = backbone.processor(text=texts, images=given if flat else None, padding=True, return_tensors="pt")
    made.pop("labels", None)
    return made
