"""FastVLM: a timm tower whose grid of features the LLM reads, one token a position."""

from __future__ import annotations

from typing import Any

from safevlm.errors import BackboneError

from .agree import agree
from .grid import GridFamily


class FastVlm(GridFamily):
    """`FastVlmForConditionalGeneration`: FastViT-HD in the published models, any timm model that gives a grid."""

    reads_prepared = True

    def complete(self, processor: Any, config: Any) -> None:
        """`LlavaProcessor` counts an image's tokens as picture size / patch size: no token beside the grid's."""
        super().complete(processor, config)
        agree(processor, {"num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"})
        if not processor.patch_size:
            raise BackboneError(
                "the processor of this fast_vlm has no patch_size, by which it counts an image's tokens; set it in "
                "processor_config.json to the stride of the vision tower (64 in the published models)"
            )
