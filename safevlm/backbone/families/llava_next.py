"""LLaVA-NeXT and LLaVA-OneVision: an overview, then any-resolution tiles of the padded image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from ..views import WHOLE, Box
from .family import TowerInputs, one_by_one, tile_boxes, tiled, tiles_of
from .llava import Llava


class LlavaNext(Llava):
    """`LlavaNextForConditionalGeneration`."""

    reads_prepared = False

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

    def rows_used(self, rows: int, *, images_in_prompt: int) -> int:
        """The overview comes first."""
        return rows if images_in_prompt == 1 else 1


def _boxes(image: Image.Image, image_processor: Any, *, tile: int) -> tuple[Box, ...]:
    """The overview's box and the tiles': the image is fitted into the best resolution, centred, and padded."""
    high, wide = select_best_resolution((image.height, image.width), image_processor.image_grid_pinpoints)
    scale = min(wide / image.width, high / image.height)
    across, down = wide / (image.width * scale), high / (image.height * scale)
    frame = ((1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2)
    return (WHOLE, *tile_boxes(high // tile, wide // tile, frame))
