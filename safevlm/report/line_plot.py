"""A plot of numbers over numbers, as a PNG: losses and metrics over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from safevlm.report.canvas import GRID, Canvas, Point

SIZE = (900, 480)
"""Pixels of the plot."""
LEFT, TOP, RIGHT, BOTTOM = 80, 70, 24, 60
"""Margins in pixels."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color)."""
TICKS = 6
"""Numbers along an axis, about."""
DOTS = 25
"""A line of at most so many points has a dot at each."""


def line_plot(
    lines: Mapping[str, Sequence[Point]],
    *,
    title: str = "",
    x: str = "",
    unit: str = "",
    ends: tuple[float, float] | None = None,
) -> bytes:
    """Draw a line through each sequence of points.

    Args:
        lines: name -> (x, y), finite and from left to right, of one to four lines.
        title: above the plot.
        x, unit: names of the axes; that of x begins at 0, or below where points do.
        ends: that the y axis has at least, such as (0, 1) for shares; None: what the points need.

    Returns:
        The bytes of a PNG.

    Raises:
        ValueError: no line, more than four, a line without a point, or a number that is not finite.
    """
    if not 1 <= len(lines) <= len(COLOURS) or not all(lines.values()):
        raise ValueError(f"{len(lines)} lines; give 1 to {len(COLOURS)}, each with a point")
    points = [point for line in lines.values() for point in line]
    if not all(math.isfinite(number) for point in points for number in point):
        raise ValueError("a point is not finite; leave it out of its line")
    across = _ticks(min(0.0, *(p[0] for p in points)), max(p[0] for p in points))
    heights = [point[1] for point in points] + list(ends or ())
    up = _ticks(min(heights), max(heights))
    canvas = Canvas(SIZE)

    def place(point: Point) -> Point:
        return _between(point[0], across, LEFT, SIZE[0] - RIGHT), _between(
            point[1], up, SIZE[1] - BOTTOM, TOP
        )

    for tick in up:
        y = place((across[0], tick))[1]
        canvas.line([(LEFT, y), (SIZE[0] - RIGHT, y)], GRID)
        canvas.text(LEFT - 8, y, f"{tick:g}", anchor="rm")
    for tick in across:
        canvas.text(place((tick, up[0]))[0], SIZE[1] - BOTTOM + 8, f"{tick:g}", anchor="mt")
    middle = (LEFT + SIZE[0] - RIGHT) / 2
    canvas.text(middle, SIZE[1] - 12, x, anchor="ms")
    canvas.text(12, 14, unit, anchor="lt")
    canvas.text(middle, 14, title, anchor="mt")
    canvas.legend(lines, COLOURS, left=LEFT)
    for number, line in enumerate(lines.values()):
        colour, places = COLOURS[number], [place(point) for point in line]
        canvas.line(places, colour, width=4 if number == 0 else 2)  # so that equal lines are both seen
        for one in places if len(places) <= DOTS else ():
            canvas.dot(*one, colour, radius=3)
    return canvas.png()


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal distances, from at most `low` to at least `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 10, low + (abs(low) or 1) / 10
    rough = (high - low) / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _between(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    """Where a value of an axis lies between its two ends, in pixels."""
    return start + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start)
