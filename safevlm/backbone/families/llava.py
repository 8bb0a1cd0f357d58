"""LLaVA-1.5 and ViP-LLaVA: one view per image, read at a hidden layer."""

from __future__ import annotations

from typing import Any

from safevlm.errors import BackboneError

from .agree import agree
from .family import Family


class Llava(Family):
    """`LlavaForConditionalGeneration`; LLaVA-1.5 reads the last but one layer of CLIP, without its class token."""

    reads_prepared = True
    one_length = True

    def vision_layer(self, config: Any) -> int | None:
        """One layer; several at once would need a projector of their joint width."""
        layer = config.vision_feature_layer
        if not isinstance(layer, int):
            raise BackboneError(
                f"this {config.model_type} reads several hidden layers at once ({layer}); "
                "the safety projector needs one: set `vision_feature_layer` to a single index"
            )
        return layer

    def drops_class_token(self, config: Any) -> bool:
        """As the config's selection strategy says."""
        return bool(config.vision_feature_select_strategy == "default")

    def complete(self, processor: Any, config: Any) -> None:
        """Patch size, and how many tokens an image has beside its patches."""
        super().complete(processor, config)
        _agree_on_patches(processor, config, drops_class_token=self.drops_class_token(config))


def _agree_on_patches(processor: Any, config: Any, *, drops_class_token: bool) -> None:
    """What `LlavaProcessor` counts an image's tokens by; CLIP's tower has a class token beside the patches."""
    agree(processor, {"patch_size": int(config.vision_config.patch_size)})
    beside = int(config.vision_config.model_type == "clip_vision_model")
    told = processor.num_additional_image_tokens - (processor.vision_feature_select_strategy == "default")
    if told != beside - drops_class_token:
        strategy = "default" if drops_class_token else "full"
        agree(processor, {"num_additional_image_tokens": beside, "vision_feature_select_strategy": strategy})


class VipLlava(Family):
    """`VipLlavaForConditionalGeneration` reads five layers; the guard reads the first that it names."""

    reads_prepared = True
    one_length = True

    def vision_layer(self, config: Any) -> int | None:
        """-2 in the published models."""
        return self.vision_layers(config)[0]

    def vision_layers(self, config: Any) -> tuple[int, ...]:
        """All that are joined."""
        layers = config.vision_feature_layers
        return (layers,) if isinstance(layers, int) else tuple(layers)

    def drops_class_token(self, config: Any) -> bool:
        """True: CLIP's class token is not used, whatever the config says."""
        return True

    def complete(self, processor: Any, config: Any) -> None:
        """As LLaVA's."""
        super().complete(processor, config)
        _agree_on_patches(processor, config, drops_class_token=self.drops_class_token(config))
