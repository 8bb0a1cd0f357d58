"""Where a heatmap lies: a bright corner of an image is found in the image's own frame, in every view of every family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor

from safevlm.backbone import FAMILIES, Backbone, Views
from safevlm.errors import BackboneError
from safevlm.modules import HeadOutput
from safevlm.viewing import ViewOutput, view_output
from tests.families import SIZE, family_backbone

CORNERS = [(0, 0), (1, 0), (0, 1), (1, 1)]
"""(right, bottom)."""
SHAPES = [(64, 64), (96, 32), (32, 96), (80, 50)]
"""Width and height."""
SHARE = 0.25
"""Of the image's width and height that is bright."""


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def backbone(request) -> Backbone:
    return family_backbone(request.param)


def planted(size: tuple[int, int], corner: tuple[int, int]) -> Image.Image:
    """A grey picture with one white corner."""
    image = Image.new("RGB", size, (90, 90, 90))
    wide, high = (round(SHARE * length) for length in size)
    image.paste((255, 255, 255), _box(corner, (size[0] - wide, size[1] - high), (wide, high)))
    return image


def _box(corner, offset, extent) -> tuple[int, int, int, int]:
    left, top = corner[0] * offset[0], corner[1] * offset[1]
    return left, top, left + extent[0], top + extent[1]


class Difference:
    """Stands in for the safety modules: attention is how far features are from those of a grey picture."""

    def __init__(self, grey: Views) -> None:
        self.groups = {group.grid: group.features for group in grey.groups}

    def __call__(self, features: torch.Tensor, grid: tuple[int, int]) -> HeadOutput:
        far = (features - self.groups[grid]).norm(dim=-1) + 1e-9
        risky = far.max(dim=1).values.log()
        levels = torch.stack([torch.zeros_like(risky), risky], dim=1)
        return HeadOutput(levels, levels, far / far.sum(dim=1, keepdim=True))


def seen(backbone: Backbone, size: tuple[int, int], corner: tuple[int, int]) -> ViewOutput:
    """The views of a planted image, risky where they differ from a grey one of its size."""
    tower = backbone.tower
    grey = tower(tower.preprocess([Image.new("RGB", size, (90, 90, 90))])).views
    views = tower(tower.preprocess([planted(size, corner)])).views
    return view_output(Difference(grey), views, pool_grid=None)


def peak(heatmap: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of the warmest places, in [0, 1]."""
    rows, columns = np.nonzero(heatmap == heatmap.max())
    return (columns.mean() + 0.5) / heatmap.shape[1], (rows.mean() + 0.5) / heatmap.shape[0]


def reach(output: ViewOutput, number: int) -> tuple[float, float]:
    """How far from the corner a peak may lie in x and y: the bright part, and half a patch that it touches."""
    (left, top, right, bottom), (rows, columns) = output.views.boxes[number], output.grids[number]
    return SHARE + (right - left) / columns / 2, SHARE + (bottom - top) / rows / 2


def shows(box: tuple[float, ...], corner: tuple[int, int]) -> bool:
    """Whether a view has the very corner in it."""
    left, top, right, bottom = box
    x, y = (abs(side - 0.01) for side in corner)
    return left <= x <= right and top <= y <= bottom


def assert_peak(output: ViewOutput, corner: tuple[int, int], allowed: tuple[float, float]) -> None:
    (heatmap,) = output.heatmaps()
    for value, side, most in zip(peak(heatmap), corner, allowed, strict=True):
        assert abs(value - side) <= most, (peak(heatmap), corner, allowed)


@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("corner", CORNERS, ids=str)
def test_the_peak_is_where_the_image_is_bright(backbone, size, corner):
    output = seen(backbone, size, corner)
    showing = [number for number, box in enumerate(output.views.boxes) if shows(box, corner)]
    assert len(showing) == 1 + (len(output.views.boxes) > 1)  # the whole, or a tile and the whole
    coarsest = max(reach(output, number) for number in showing)
    assert max(coarsest) <= 0.5
    assert_peak(output, corner, coarsest)
    for number in showing:
        levels = torch.tensor([[100.0, -100.0]]).repeat(len(output.views.boxes), 1)
        levels[number] = -levels[number]
        assert_peak(replace(output, level_logits=levels), corner, reach(output, number))


def test_tiled_families_are_tried_with_tiles(backbone):
    tiled = {"llava_next", "llava_onevision", "internvl", "idefics3", "smolvlm"}
    count = len(seen(backbone, SHAPES[1], CORNERS[0]).views.boxes)
    assert (count > 2) == (backbone.model_type in tiled)


def test_cropped_edges_stay_cold_and_the_rest_lies_where_it_was():
    backbone = family_backbone("llava")
    crop = {"height": SIZE, "width": SIZE}
    backbone.processor.image_processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=crop)
    tower = backbone.tower
    image, grey = (Image.new("RGB", (96, 32), (90, 90, 90)) for _ in range(2))
    image.paste((255, 255, 255), (32, 0, 40, 32))  # the left quarter of the middle third
    views = [tower(tower.preprocess([picture])).views for picture in (image, grey)]
    output = view_output(Difference(views[1]), views[0], pool_grid=None)
    assert output.views.boxes == (pytest.approx((1 / 3, 0, 2 / 3, 1)),)
    (heatmap,) = output.heatmaps()
    assert heatmap.shape == (4, 12)
    assert not heatmap[:, :4].any()
    assert not heatmap[:, 8:].any()
    assert set(np.nonzero(heatmap > 0.9)[1]) == {4}


@pytest.mark.parametrize("corner", CORNERS, ids=str)
@pytest.mark.parametrize("size", [(96, 48), (48, 96)], ids=str)
def test_a_picture_padded_to_a_square_is_cut_to_the_image(size, corner):
    backbone = family_backbone("llava")
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    backbone.processor.image_processor = LlavaImageProcessor(do_pad=True, **sizes)
    output = seen(backbone, size, corner)
    (box,) = output.views.boxes
    assert sorted(box) == pytest.approx([-0.5, 0, 1, 1.5])
    assert_peak(output, corner, reach(output, 0))


def test_crops_beside_the_picture_are_refused():
    backbone = family_backbone("gemma3")
    processor = backbone.processor.image_processor
    processor.do_pan_and_scan, processor.pan_and_scan_min_ratio_to_activate = True, 1.2
    processor.pan_and_scan_min_crop_size, processor.pan_and_scan_max_num_crops = 16, 2
    with pytest.raises(BackboneError, match=r"3 views of 1 images; switch .*do_pan_and_scan=False"):
        backbone.tower.preprocess([Image.new("RGB", (64, 32))])


@pytest.mark.parametrize("size", [(96, 32), (32, 96), (80, 50)], ids=str)
@pytest.mark.parametrize("kind", ["llava_next", "llava_onevision"])
def test_what_is_padded_around_tiles_lies_outside_the_image(kind, size):
    inputs = family_backbone(kind).tower.preprocess([Image.new("RGB", size, (255, 255, 255))])
    boxes, bright = inputs.boxes[0][1:], inputs.tensors["pixel_values"][1:, 0] > 0
    assert not bright.all()
    places = (torch.arange(SIZE) + 0.5) / SIZE
    for (left, top, right, bottom), tile in zip(boxes, bright, strict=True):
        x, y = left + (right - left) * places, top + (bottom - top) * places
        inside = ((y - 0.5).abs() <= 0.5)[:, None] & ((x - 0.5).abs() <= 0.5)[None]
        assert (inside == tile).float().mean() > 0.9  # sizes are rounded to whole pixels
