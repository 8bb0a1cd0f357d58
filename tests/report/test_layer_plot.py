"""The plot over layers: drawn where it should be, whatever the numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from safevlm.report import layer_plot
from safevlm.report.layer_plot import BOTTOM, COLOURS, LEFT, MARK, RIGHT, SIZE, TOP


def drawn(*args, **options) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(layer_plot(*args, **options))).convert("RGB")).astype(int)


def at(pixels: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    return tuple(pixels[round(y), round(x)])


def place(layer: int, value: float, *, layers: int, low: float) -> tuple[float, float]:
    step = (SIZE[0] - LEFT - RIGHT) / layers
    return LEFT + (layer + 0.5) * step, TOP + (1 - value) / (1 - low) * (SIZE[1] - TOP - BOTTOM)


@pytest.mark.parametrize(("other", "low"), [(0.6, 0.5), (0.25, 0.0)])
def test_each_value_has_a_dot_of_its_line_at_its_place(other, low):
    lines = {"one": {0: 0.75, 1: 1.0, 2: 0.9}, "two": {0: other, 1: other, 2: 0.7}}
    pixels = drawn(lines, unit="AUROC", title="t")
    assert pixels.shape == (SIZE[1], SIZE[0], 3)
    for colour, values in zip(COLOURS, lines.values(), strict=False):
        for layer, value in values.items():
            found = at(pixels, *place(layer, value, layers=3, low=low))
            assert found == pytest.approx(ImageColor.getrgb(colour), abs=8)


def test_marked_layers_are_shaded():
    lines = {"one": dict.fromkeys(range(6), 0.8)}
    marked, plain = drawn(lines, marked=[2]), drawn(lines)
    x, y = place(2, 0.95, layers=6, low=0.5)
    assert at(marked, x, y) == pytest.approx(ImageColor.getrgb(MARK), abs=2)
    assert at(plain, x, y) == (255, 255, 255)
    x, y = place(3, 0.95, layers=6, low=0.5)
    assert at(marked, x, y) == (255, 255, 255)


def test_one_layer_and_many(tmp_path):
    for count in (1, 2, 33, 200):
        assert drawn({"one": dict.fromkeys(range(count), 0.6)}).shape[2] == 3


@pytest.mark.parametrize("lines", [{}, {"one": {}}, {str(number): {0: 1.0} for number in range(5)}])
def test_nothing_to_draw(lines):
    with pytest.raises(ValueError, match="give 1 to 4"):
        layer_plot(lines)
