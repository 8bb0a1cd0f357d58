"""Bars with intervals."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from safevlm.report import bar_plot


def test_a_bar_is_as_high_as_its_share():
    groups = {
        "one": {"a": (0.5, 0.4, 0.6), "b": None},
        "<two> " * 20: {"a": (1.0, 0.9, 1.0), "b": (0.0, 0.0, 0.1)},
    }
    plot = Image.open(io.BytesIO(bar_plot(groups, title="t")))
    pixels = np.asarray(plot.convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x56, 0xB4, 0xE9)).sum(2) < 30)[70:]  # below the legend
    columns = np.flatnonzero(blue.any(0))
    heights = blue.sum(0)[columns]
    assert heights[5] == pytest.approx(150, abs=3)
    assert heights.max() == pytest.approx(300, abs=3)
    for wrong in ({}, {"g": {}}, {"g": dict.fromkeys("abcde")}):
        with pytest.raises(ValueError, match="give at least one"):
            bar_plot(wrong)
