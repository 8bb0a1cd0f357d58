"""LLaVA-NeXT and LLaVA-OneVision: an overview, then any-resolution tiles of the padded image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from ..views import WHOLE, Box
from .agree import agree
from .family import Family, TowerInputs, one_by_one, tile_boxes, tiled, tiles_of
from .llava import Llava


class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`."""

    reads_prepared = False
    one_length = False
    scales_whole = False

    def complete(self, processor: Any, config: Any) -> None:
        """As LLaVA's, and the resolutions that images are fitted into."""
        super().complete(processor, config)
        _agree_on_resolutions(processor.image_processor, config)

    def prepare(self, images: Sequence[Image.Image], image_processor: Any) -> TowerInputs:
        """All tiles of every image."""
        outputs = one_by_one(images, image_processor)
        boxes = [
            _boxes(image, image_processor, tile=tiles_of(output).shape[-1])
            for image, output in zip(images, outputs, strict=True)
        ]
        return tiled(outputs, boxes)


class LlavaOneVision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`; with several images in a prompt the LLM reads overviews only."""

    nested_images = True

    def complete(self, processor: Any, config: Any) -> None:
        """The number of a tile's tokens, and how images are fitted into tiles."""
        Family.complete(self, processor, config)
        vision = config.vision_config
        values = {"num_image_tokens": (int(vision.image_size) // int(vision.patch_size)) ** 2}
        values |= {"vision_aspect_ratio": config.vision_aspect_ratio}
        agree(processor, {**values, "vision_feature_select_strategy": config.vision_feature_select_strategy})
        _agree_on_resolutions(processor.image_processor, config)

    def rows_used(self, rows: int, *, images_in_prompt: int) -> int:
        """The overview comes first."""
        return rows if images_in_prompt == 1 else 1


def _agree_on_resolutions(image_processor: Any, config: Any) -> None:
    known = {tuple(pair) for pair in image_processor.image_grid_pinpoints or ()}
    if known != {tuple(pair) for pair in config.image_grid_pinpoints}:
        agree(image_processor, {"image_grid_pinpoints": [list(pair) for pair in config.image_grid_pinpoints]})


def _boxes(image: Image.Image, image_processor: Any, *, tile: int) -> tuple[Box, ...]:
    """The overview's box and the tiles': the image is fitted into the best resolution, centred, and padded."""
    high, wide = select_best_resolution((image.height, image.width), image_processor.image_grid_pinpoints)
    scale = min(wide / image.width, high / image.height)
    across, down = wide / (image.width * scale), high / (image.height * scale)
    frame = ((1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2)
    return (WHOLE, *tile_boxes(high // tile, wide // tile, frame))
