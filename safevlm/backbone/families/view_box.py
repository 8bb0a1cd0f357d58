"""What an image processor that makes one view of an image does to its size: which part is seen, how it is scaled."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..views import Box


def view_box(image: Image.Image, image_processor: Any) -> Box:
    """The view's box in the image's own frame: smaller where edges are cropped, larger where it is padded.

    Follows CLIP's and LLaVA's processors: pad to a square, resize, crop the centre, each where it is on.
    """
    wide, high = image.size
    if getattr(image_processor, "do_pad", False) and hasattr(image_processor, "pad_to_square"):
        wide = high = max(image.size)
    seen_wide, seen_high = float(wide), float(high)
    if getattr(image_processor, "do_center_crop", False):
        crop, (across, down) = image_processor.crop_size, _resized(wide, high, image_processor)
        seen_wide, seen_high = wide * crop["width"] / across, high * crop["height"] / down
    x, y = seen_wide / image.width / 2, seen_high / image.height / 2
    return 0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y


def _resized(wide: int, high: int, image_processor: Any) -> tuple[float, float]:
    """(width, height) before the crop; a size with a shortest edge alone keeps the ratio."""
    if not getattr(image_processor, "do_resize", True):
        return wide, high
    size = image_processor.size
    if edge := size.get("shortest_edge"):
        return edge * wide / min(wide, high), edge * high / min(wide, high)
    return size["width"], size["height"]


def scaled_side(image_processor: Any) -> int | None:
    """Pixels on the side that images of any size are scaled to, the longer side where both are fixed; None: as they are."""
    if not getattr(image_processor, "do_resize", True):
        return None
    size = image_processor.size
    sides = [side for name in ("shortest_edge", "height", "width") if (side := size.get(name))]
    return max(sides, default=None)
