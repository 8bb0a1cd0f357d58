"""Idefics3 and SmolVLM: tiles of the image in rows and columns, then the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from ..views import WHOLE, Box
from .agree import agree
from .family import Family, TowerInputs, one_by_one, tile_boxes, tiled, tiles_of


class Idefics3(Family):
    """`Idefics3ForConditionalGeneration` and `SmolVLMForConditionalGeneration`."""

    tower = "model.vision_model"
    tower_keys = ("model.vision_model.", "vision_model.")
    embedding_keys = ("model.text_model.embed_tokens.weight", "text_model.embed_tokens.weight")
    nested_images = True
    scales_whole = False

    def build_tower(self, vision_config: Any) -> nn.Module:
        """The class that the whole model uses, in either family."""
        smol = vision_config.model_type.startswith("smolvlm")
        return (SmolVLMVisionTransformer if smol else Idefics3VisionTransformer)(vision_config)

    def prepare(self, images: Sequence[Image.Image], image_processor: Any) -> TowerInputs:
        """All tiles of every image; the masks say which patches are not padding."""
        outputs = one_by_one(images, image_processor, return_row_col_info=True)
        masks = torch.cat([tiles_of(output, "pixel_attention_mask") for output in outputs])
        return tiled(outputs, [_boxes(output) for output in outputs], extra={"pixel_attention_mask": masks})

    def complete(self, processor: Any, config: Any) -> None:
        """The number of a tile's tokens."""
        super().complete(processor, config)
        vision = config.vision_config
        patches = (int(vision.image_size) // int(vision.patch_size)) ** 2
        agree(processor, {"image_seq_len": int(patches / config.scale_factor**2)})

    def opening_id(self, processor: Any, config: Any) -> int:
        """Every tile's tokens start with the token around images."""
        return int(processor.tokenizer.convert_tokens_to_ids(str(processor.fake_image_token)))

    def tower_arguments(self, tensors: dict[str, Tensor], vision_config: Any) -> dict[str, Tensor]:
        """The mask by patches instead of pixels: a patch counts where one of its pixels does."""
        size = int(vision_config.patch_size)
        mask = tensors["pixel_attention_mask"]
        patches = mask.unfold(1, size, size).unfold(2, size, size).sum(dim=(-1, -2)) > 0
        return {"pixel_values": tensors["pixel_values"], "patch_attention_mask": patches}


def _boxes(output: dict[str, Any]) -> tuple[Box, ...]:
    rows, columns = output["rows"][0][0], output["cols"][0][0]
    return (*tile_boxes(rows, columns), WHOLE) if rows and columns else (WHOLE,)
