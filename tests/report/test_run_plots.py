"""The plots of a run: every number is drawn where its axes say."""

from __future__ import annotations

import importlib
import io
import math

import numpy as np
import pytest
from PIL import Image, ImageColor

from safevlm.report import histogram_plot, line_plot, reliability_plot

lines_of, scores_of = (importlib.import_module(f"safevlm.report.{name}_plot") for name in ("line", "score"))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def columns(found: np.ndarray, colour: str, *, below: int) -> np.ndarray:
    """Pixels of a colour in each column, below the legend."""
    return (np.abs(found - ImageColor.getrgb(colour)).sum(2) < 30)[below:].sum(0)


def test_a_point_of_a_line_is_at_its_place():
    found = pixels(
        line_plot({"a": [(0, 0.5), (50, 0.9), (100, 1.0)]}, x="step", unit="AUROC", ends=(0.5, 1.0))
    )
    width = lines_of.SIZE[0] - lines_of.LEFT - lines_of.RIGHT
    height = lines_of.SIZE[1] - lines_of.TOP - lines_of.BOTTOM
    for x, y in ((0, 0.5), (50, 0.9), (100, 1.0)):
        place = lines_of.LEFT + x / 100 * width, lines_of.TOP + (1 - y) / 0.5 * height
        found_here = found[round(place[1]), round(place[0])]
        assert tuple(found_here) == pytest.approx(ImageColor.getrgb(lines_of.COLOURS[0]), abs=8)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 18, [0, 5, 10, 15, 20]),
        (0.5, 1, [0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (23.4, 52.1, [20, 30, 40, 50, 60]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 100_000, [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
    ],
)
def test_ticks_are_round_and_hold_the_numbers(low, high, ticks):
    assert lines_of._ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("value", [0.0, 7.25, -3.0, 1e-7])
def test_one_point_and_a_constant_line_are_drawn(value):
    found = pixels(line_plot({"one": [(18, value)], "two": [(1, value), (2, value)]}))
    assert columns(found, lines_of.COLOURS[0], below=lines_of.TOP).sum() > 10


@pytest.mark.parametrize(
    ("lines", "told"),
    [({}, "give 1 to 4"), ({"a": []}, "with a point"), ({"a": [(0, math.nan)]}, "not finite")],
)
def test_lines_that_cannot_be_drawn(lines, told):
    with pytest.raises(ValueError, match=told):
        line_plot(lines)


def test_bars_of_a_histogram_are_shares_of_their_kind():
    histogram = [(30, 0), (10, 1)] + [(0, 0)] * 7 + [(0, 3)]
    found = pixels(histogram_plot(histogram, threshold=0.55))
    height = scores_of.SIZE[1] - scores_of.TOP - scores_of.BOTTOM
    for colour, shares in ((scores_of.SAFE, [0.75, 0.25]), (scores_of.RISKY, [0.25, 0.75])):
        tall = columns(found, colour, below=scores_of.TOP)
        bars = [part.max() for part in np.split(tall, np.flatnonzero(tall == 0)) if part.any()]
        assert bars == pytest.approx([share * height for share in shares], abs=3)
    line = round(scores_of.LEFT + 0.55 * (scores_of.SIZE[0] - scores_of.LEFT - scores_of.RIGHT))
    assert columns(found, "#222222", below=scores_of.TOP)[line] > 0.9 * height
    with pytest.raises(ValueError, match="no images"):
        histogram_plot([(0, 0)] * 10)


def test_dots_of_the_reliability_diagram():
    found = pixels(reliability_plot([(0.25, 0.1, 0.05, 0.2), (0.8, 0.9, 0.6, 1.0)]))
    width = scores_of.SIZE[0] - scores_of.LEFT - scores_of.RIGHT
    height = scores_of.SIZE[1] - scores_of.TOP - scores_of.BOTTOM
    for score, share in ((0.25, 0.1), (0.8, 0.9)):
        place = scores_of.TOP + (1 - share) * height, scores_of.LEFT + score * width
        here = found[round(place[0]), round(place[1])]
        assert tuple(here) == pytest.approx(ImageColor.getrgb(scores_of.SAFE), abs=40)
    with pytest.raises(ValueError, match="no bins"):
        reliability_plot([])
