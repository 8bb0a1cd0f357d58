"""Families of vision-language models, decided by `config.model_type`: one entry each."""

from __future__ import annotations

from typing import Any

from safevlm.errors import BackboneError

from .alone import Clip, Siglip
from .family import Family, TowerInputs
from .fast_vlm import FastVlm
from .gemma3 import Gemma3
from .idefics3 import Idefics3
from .internvl import InternVL
from .llava import Llava, VipLlava
from .llava_next import LlavaNext, LlavaOneVision
from .paligemma import PaliGemma
from .qwen_vl import Qwen2VL, QwenVL
from .timm import Timm

FAMILIES: dict[str, Family] = {
    "fast_vlm": FastVlm(),
    "gemma3": Gemma3(),
    "idefics3": Idefics3(),
    "internvl": InternVL(),
    "llava": Llava(),
    "llava_next": LlavaNext(),
    "llava_onevision": LlavaOneVision(),
    "paligemma": PaliGemma(),
    "qwen2_5_vl": QwenVL(),
    "qwen2_vl": Qwen2VL(),
    "qwen3_vl": QwenVL(),
    "smolvlm": Idefics3(),
    "vipllava": VipLlava(),
}

TOWERS: dict[str, Family] = {
    "clip": Clip(),
    "clip_vision_model": Clip(),
    "siglip": Siglip(),
    "siglip_vision_model": Siglip(),
    "timm": Timm(),
}
"""Vision towers without a language model, which score and cannot answer."""


def family_of(config: Any) -> Family:
    """The family of a model's config; raises BackboneError that lists the known ones."""
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        if config.model_type in TOWERS:
            raise BackboneError(
                f"{config.model_type!r} is a vision tower without a language model, which scores and cannot "
                "answer; load it with RiskScorer"
            ) from None
        raise BackboneError(
            f"no family for model_type {config.model_type!r}; known: {', '.join(sorted(FAMILIES))}. "
            "To add one, write its file in safevlm/backbone/families and its entry in FAMILIES there"
        ) from None


def tower_family_of(config: Any) -> Family:
    """The family whose tower is read, with a language model or without; raises BackboneError."""
    return TOWERS[config.model_type] if config.model_type in TOWERS else family_of(config)


__all__ = ["FAMILIES", "TOWERS", "Family", "TowerInputs", "family_of", "tower_family_of"]
