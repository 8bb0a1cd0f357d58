"""InternVL: tiles of the stretched image, then a thumbnail of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from ..views import WHOLE, Box
from .agree import agree
from .family import Family, TowerInputs, one_by_one, tile_boxes, tiled


class InternVL(Family):
    """`InternVLForConditionalGeneration`."""

    scales_whole = False

    def vision_layer(self, config: Any) -> int | None:
        """The tower's output where the config says -1."""
        layer = int(config.vision_feature_layer)
        return None if layer == -1 else layer

    def drops_class_token(self, config: Any) -> bool:
        """As the config's selection strategy says."""
        return bool(config.vision_feature_select_strategy == "default")

    def prepare(self, images: Sequence[Image.Image], image_processor: Any) -> TowerInputs:
        """All tiles of every image."""
        outputs = one_by_one(images, image_processor)
        return tiled(outputs, [_boxes(image, image_processor) for image in images])

    def complete(self, processor: Any, config: Any) -> None:
        """The number of a tile's tokens."""
        super().complete(processor, config)
        agree(processor, {"image_seq_length": int(config.image_seq_length)})

    def opening_id(self, processor: Any, config: Any) -> int:
        """The expansion starts with the image's start token."""
        return int(processor.start_image_token_id)


def _boxes(image: Image.Image, image_processor: Any) -> tuple[Box, ...]:
    if not image_processor.crop_to_patches:
        return (WHOLE,)
    size = image_processor.size
    columns, rows = get_optimal_tiled_canvas(
        (image.height, image.width),
        (size["height"], size["width"]),
        image_processor.min_patches,
        image_processor.max_patches,
    )
    tiles = tile_boxes(rows, columns)
    return (*tiles, WHOLE) if len(tiles) > 1 else tiles
