"""Models of published shapes with random weights, built from their configs: speed does not depend on values.

Nothing is downloaded: the widths below are those of the named checkpoints' own configs, and tokenizer and
chat template come from a processor that is already here, whose vocabulary is the smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    FastVlmConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Qwen2Config,
    SiglipVisionConfig,
    TimmWrapperConfig,
    TimmWrapperModel,
)

from .bare import BareGridTower, BareTower
from .load_backbone import Backbone, wrap_backbone

TOKEN_IDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _processor(other: Any, image_size: int, patch_size: int, *, class_token: bool) -> LlavaProcessor:
    """One for square images, with another's tokenizer and chat template."""
    size = {"height": image_size, "width": image_size}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=size),
        tokenizer=other.tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default" if class_token else "full",
        num_additional_image_tokens=int(class_token),
        chat_template=other.chat_template,
    )


@dataclass(frozen=True)
class LlavaShape:
    """Sizes of a LLaVA: a CLIP tower read at its last layer but one, and a LLM of the Llama kind.

    Args:
        vision: arguments of `CLIPVisionConfig`.
        text: arguments of `LlamaConfig`.
        source: whose sizes they are.
    """

    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    source: str

    @property
    def image_size(self) -> int:
        """Pixels on a side of what the tower sees."""
        return int(self.vision["image_size"])

    @property
    def vision_dim(self) -> int:
        """Width of the tower's features."""
        return int(self.vision["hidden_size"])

    def tower(self) -> BareTower:
        """The tower as transformers runs it, all layers."""
        return BareTower(CLIPVisionModel(CLIPVisionConfig(**self.vision)), layer=-2)

    def model(self, text: Mapping[str, Any], processor: Any) -> tuple[Any, Any]:
        """Config of a whole model with an LLM of sizes `text`, and its processor with another's tokenizer."""
        patch = self.vision["patch_size"]
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(**self.vision),
            text_config=LlamaConfig(**text),
            image_token_index=processor.image_token_id,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            image_seq_length=(self.image_size // patch) ** 2,
        )
        return config, _processor(processor, self.image_size, patch, class_token=True)


@dataclass(frozen=True)
class FastVlmShape:
    """Sizes of a FastVLM: a convolutional tower of timm, read at its grid, and a LLM of the Llama kind.

    Args:
        architecture: timm's name of the tower.
        vision_dim: width of its features.
        image_size: pixels on a side of what it sees.
        stride: pixels on a side of what one position of the grid stands for.
        text: arguments of `LlamaConfig`.
        source: whose sizes they are.
    """

    architecture: str
    vision_dim: int
    image_size: int
    stride: int
    text: Mapping[str, Any]
    source: str

    def tower(self) -> BareTower:
        """The tower as transformers runs it."""
        return BareGridTower(TimmWrapperModel(self._vision()))

    def model(self, text: Mapping[str, Any], processor: Any) -> tuple[Any, Any]:
        """Config of a whole model with an LLM of sizes `text`, and its processor with another's tokenizer."""
        config = FastVlmConfig(
            vision_config=self._vision().to_dict(),
            text_config={**text, "model_type": "llama"},
            image_token_index=processor.image_token_id,
            image_seq_length=(self.image_size // self.stride) ** 2,
        )
        return config, _processor(processor, self.image_size, self.stride, class_token=False)

    def _vision(self) -> TimmWrapperConfig:
        sizes: dict[str, Any] = {"hidden_size": self.vision_dim}
        return TimmWrapperConfig(architecture=self.architecture, do_pooling=False, **sizes)


Shape: TypeAlias = LlavaShape | FastVlmShape


@dataclass(frozen=True)
class OnevisionShape:
    """Sizes of a LLaVA-OneVision: a SigLIP tower that sees an overview and tiles, and a LLM of the Qwen2 kind.

    Args:
        vision: arguments of `SiglipVisionConfig`.
        text: arguments of `Qwen2Config`.
        pinpoints: (height, width) in pixels of the resolutions that images are fitted into; None for
            the published ones, 384 to 2304 px.
        source: whose sizes they are.
    """

    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    source: str
    pinpoints: tuple[tuple[int, int], ...] | None = None


def _transformer(width: int, inner: int, layers: int, heads: int, **more: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


SHAPES: dict[str, Shape] = {
    "vit-l-14-336": LlavaShape(
        vision=_transformer(1024, 4096, 24, 16, image_size=336, patch_size=14, projection_dim=768),
        text=_transformer(4096, 11008, 32, 32, vocab_size=32064, max_position_embeddings=4096),
        source="llava-hf/llava-1.5-7b-hf: openai/clip-vit-large-patch14-336 and Vicuna-7B",
    ),
    "vit-b-32": LlavaShape(
        vision=_transformer(768, 3072, 12, 12, image_size=224, patch_size=32, projection_dim=512),
        text=_transformer(896, 4864, 24, 14, num_key_value_heads=2, vocab_size=32064),
        source="openai/clip-vit-base-patch32 and the widths of Qwen2-0.5B",
    ),
    "mini": FastVlmShape(
        architecture="tf_efficientnet_lite0",
        vision_dim=1280,
        image_size=224,
        stride=32,
        text=_transformer(256, 682, 6, 4, vocab_size=2560),
        source="safevlm-mini-base: EfficientNet-Lite0 and a small Llama",
    ),
    "tiny": LlavaShape(
        vision=_transformer(32, 64, 3, 2, image_size=32, patch_size=8),
        text=_transformer(32, 64, 2, 2, vocab_size=64),
        source="nobody's: shows that the benchmark runs, its numbers mean nothing",
    ),
}
"""Name -> shape; the tower's name, as it is what the benchmark is about."""

GUARD_SHAPES: dict[str, OnevisionShape] = {
    "llava-onevision-0.5b": OnevisionShape(
        vision=_transformer(1152, 4304, 26, 16, image_size=384, patch_size=14),
        text=_transformer(
            896, 4864, 24, 14, num_key_value_heads=2, vocab_size=152000, max_position_embeddings=32768
        ),
        source="llava-hf/llava-onevision-qwen2-0.5b-ov-hf: SigLIP so400m/14-384 and Qwen2-0.5B",
    ),
    "tiny": OnevisionShape(
        vision=_transformer(32, 64, 2, 2, image_size=32, patch_size=8),
        text=_transformer(32, 64, 2, 2, num_key_value_heads=1, vocab_size=64),
        pinpoints=((32, 32), (32, 64), (64, 32), (64, 64)),
        source="nobody's: shows that the benchmark runs, its numbers mean nothing",
    ),
}


def random_tower(shape: Shape, *, device: torch.device, dtype: torch.dtype) -> BareTower:
    """The shape's tower as transformers runs it; BatchNorms are folded, as scoring folds them."""
    with torch.device(device):
        tower = shape.tower()
    tower.module.to(dtype).eval().requires_grad_(False)
    tower.fold_norms(shape.image_size)
    return tower


def random_backbone(
    shape: Shape,
    *,
    processor: Any,
    device: torch.device,
    dtype: torch.dtype,
    text_layers: int | None = None,
) -> Backbone:
    """A frozen model of the shape.

    Args:
        processor: a `LlavaProcessor` whose tokenizer and chat template are used.
        text_layers: layers of the LLM, None for the shape's; 0 leaves the embeddings of the tokenizer's
            own words alone, for what needs the tower and no LLM.
    """
    text: dict[str, Any] = {**shape.text, **TOKEN_IDS}
    if text_layers is not None:
        text["num_hidden_layers"] = text_layers
    text["vocab_size"] = max(len(processor.tokenizer), 0 if text_layers == 0 else text["vocab_size"])
    config, own = shape.model(text, processor)
    return wrap_backbone(_random(config, device, dtype), own, name=shape.source)


def random_onevision(
    shape: OnevisionShape, *, processor: Any, device: torch.device, dtype: torch.dtype
) -> tuple[Any, Any]:
    """A LLaVA-OneVision of the shape, and its processor with another's tokenizer and chat template."""
    config = _onevision_config(shape, processor)
    size = shape.vision["image_size"]
    own = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size={"height": size, "width": size}, image_grid_pinpoints=config.image_grid_pinpoints
        ),
        tokenizer=processor.tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(),
        num_image_tokens=(size // shape.vision["patch_size"]) ** 2,
        vision_feature_select_strategy="full",
        chat_template=processor.chat_template,
    )
    return _random(config, device, dtype), own


def onevision_bytes(shape: OnevisionShape, *, processor: Any, dtype: torch.dtype) -> int:
    """Bytes of the weights of `random_onevision`, without making them."""
    model = _random(_onevision_config(shape, processor), torch.device("meta"), dtype)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _onevision_config(shape: OnevisionShape, processor: Any) -> LlavaOnevisionConfig:
    vocabulary = max(shape.text["vocab_size"], len(processor.tokenizer) + 1)
    pinpoints = None if shape.pinpoints is None else [list(pair) for pair in shape.pinpoints]
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**shape.vision, vision_use_head=False),
        text_config=Qwen2Config(
            **{**shape.text, "vocab_size": vocabulary}, **TOKEN_IDS, tie_word_embeddings=True
        ),
        image_token_index=processor.image_token_id,
        video_token_index=vocabulary - 1,  # in no prompt
        image_grid_pinpoints=pinpoints,
    )


def _random(config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model.eval()
