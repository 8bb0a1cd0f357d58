"""Qwen-VL: images of any size, their patches packed in one sequence; the tower merges patches into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    BaseModelOutputWithDeepstackFeatures,
    Qwen3VLVisionModel,
)

from ..views import WHOLE, Grid
from .agree import agree
from .family import Family, TowerInputs

_TOWERS: dict[str, Any] = {
    "qwen2_vl": Qwen2VisionTransformerPretrainedModel,
    "qwen2_vl_vision": Qwen2VisionTransformerPretrainedModel,
    "qwen2_5_vl": Qwen2_5_VisionTransformerPretrainedModel,
    "qwen2_5_vl_vision": Qwen2_5_VisionTransformerPretrainedModel,
    "qwen3_vl": Qwen3VLVisionModel,
    "qwen3_vl_vision": Qwen3VLVisionModel,
}


class QwenVL(Family):
    """`Qwen2_5_VLForConditionalGeneration` and `Qwen3VLForConditionalGeneration`; read are the merged tokens."""

    tower = "model.visual"
    tower_keys = ("visual.", "model.visual.")
    packed = True
    scales_whole = False

    def build_tower(self, vision_config: Any) -> nn.Module:
        """The class that the whole model uses."""
        tower: nn.Module = _TOWERS[vision_config.model_type](vision_config)
        return tower

    def feature_dim(self, vision_config: Any) -> int:
        """The merger projects to the LLM's width."""
        return int(vision_config.out_hidden_size)

    def prepare(self, images: Sequence[Image.Image], image_processor: Any) -> TowerInputs:
        """All images' patches in one sequence."""
        made = image_processor(images=list(images), return_tensors="pt")
        sizes, merge = made["image_grid_thw"], image_processor.merge_size
        return TowerInputs(
            {"pixel_values": made["pixel_values"], "grid_thw": sizes},
            tuple(sizes.prod(-1).tolist()),
            tuple((h // merge, w // merge) for _, h, w in sizes.tolist()),
            ((WHOLE,),) * len(images),
        )

    def features(self, output: Any, *, layer: int | None, drops_class_token: bool) -> Tensor:
        """The merged tokens (positions, dim), row by row within an image."""
        merged: Tensor = output.pooler_output
        return merged

    def llm_features(
        self, output: Any, *, layers: Sequence[int | None], drops_class_token: bool
    ) -> list[Tensor]:
        """The merged tokens, and those that Qwen3-VL adds behind its LLM's first layers."""
        return [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]

    def llm_states(self, layers: Sequence[int | None], vision_config: Any) -> int:
        """The merged tokens, and one for each of Qwen3-VL's deeper layers that are read."""
        return 1 + len(getattr(vision_config, "deepstack_visual_indexes", None) or ())

    def output_of(
        self,
        features: Sequence[Tensor],
        *,
        layers: Sequence[int | None],
        depth: int | None,
        drops_class_token: bool,
        grid: Grid | None,
    ) -> Any:
        """As Qwen3-VL's tower gives it; the other towers' have no `deepstack_features`, and none are read."""
        merged, *deeper = features
        return BaseModelOutputWithDeepstackFeatures(pooler_output=merged, deepstack_features=deeper)

    def rows_of(self, grids: Sequence[Grid], vision_config: Any) -> int:
        """Patches before they are merged."""
        return sum(h * w for h, w in grids) * int(vision_config.spatial_merge_size) ** 2

    def complete(self, processor: Any, config: Any) -> None:
        """The sizes of patches, which the tower is made for."""
        super().complete(processor, config)
        vision = config.vision_config
        sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
        agree(processor.image_processor, {**sizes, "temporal_patch_size": vision.temporal_patch_size})

    def opening(self, processor: Any) -> str:
        """An image begins with the token that starts vision."""
        return "<|vision_start|>"

    def opening_id(self, processor: Any, config: Any) -> int:
        """Before the image's own tokens, so that positions are counted as without safety tokens."""
        return int(config.vision_start_token_id)


class Qwen2VL(QwenVL):
    """`Qwen2VLForConditionalGeneration`: its vision config calls the LLM's width `hidden_size`."""

    def feature_dim(self, vision_config: Any) -> int:
        """The merger projects to the LLM's width."""
        return int(vision_config.hidden_size)
