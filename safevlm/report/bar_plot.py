"""A plot of shares in groups, as a PNG: a bar for each share, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from safevlm.printable import printable
from safevlm.report.canvas import GRID, INK, SCALE, Canvas, font

BAR, SPACE, HEIGHT = 26, 36, 300
"""Pixels: a bar's width, the space between groups, the height of a share of 1."""
LEFT, TOP, RIGHT, BOTTOM = 130, 80, 30, 130
"""Margins in pixels."""
COLOURS = ("#56b4e9", "#009e73", "#d55e00", "#cc79a7")
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color)."""
MOST, LONGEST = 60, 28
"""Groups that are drawn at most; characters of a group's name."""

Groups = Mapping[str, Mapping[str, tuple[float, float, float] | None]]


def bar_plot(groups: Groups, *, title: str = "") -> bytes:
    """Draw groups of bars.

    Args:
        groups: name -> bar -> (value, low, high), all in [0, 1]; None: "N/A" stands there. Every group has the bars of
            the first, one to four; of more than 60 groups the first are drawn.
        title: above the plot.

    Returns:
        The bytes of a PNG.

    Raises:
        ValueError: no groups, or another number of bars.
    """
    names = list(next(iter(groups.values()))) if groups else []
    if not 1 <= len(names) <= len(COLOURS):
        raise ValueError(
            f"{len(groups)} groups with {len(names)} bars; give at least one group, and 1 to {len(COLOURS)} bars in each"
        )
    drawn = dict(list(groups.items())[:MOST])
    step = BAR * len(names) + SPACE
    size = (max(LEFT + RIGHT + step * len(drawn), 560), TOP + HEIGHT + BOTTOM)
    canvas = Canvas(size)
    _axes(canvas, title, names)
    for number, (group, bars) in enumerate(drawn.items()):
        left = LEFT + SPACE / 2 + number * step
        for place, name in enumerate(names):
            _bar(canvas, left + place * BAR, COLOURS[place], bars.get(name))
        _slanted(canvas, left + BAR * len(names) / 2, group)
    return canvas.png()


def _axes(canvas: Canvas, title: str, names: Sequence[str]) -> None:
    for tick in range(6):
        y = _y(tick / 5)
        canvas.line([(LEFT, y), (canvas.size[0] - RIGHT, y)], GRID)
        canvas.text(LEFT - 8, y, f"{tick / 5:.1f}", anchor="rm")
    canvas.text(LEFT, 14, title, anchor="lt")
    canvas.legend(names, COLOURS, left=LEFT)


def _bar(canvas: Canvas, x: float, colour: str, found: tuple[float, float, float] | None) -> None:
    if found is None:
        canvas.text(x + BAR / 2, _y(0) - 4, "N/A", anchor="ms")
        return
    value, low, high = found
    canvas.box(x + 2, _y(value), x + BAR - 2, _y(0), colour)
    canvas.interval(x + BAR / 2, _y(low), _y(high))


def _slanted(canvas: Canvas, x: float, name: str) -> None:
    """A group's name, rising to the middle of its bars."""
    short = printable(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")
    width = int(ImageDraw.Draw(canvas.image).textlength(short, font=font())) + 8
    label = Image.new("L", (width, 24 * SCALE))
    ImageDraw.Draw(label).text((width - 4, 12 * SCALE), short, fill=255, font=font(), anchor="rm")
    turned = label.rotate(28, expand=True, resample=Image.Resampling.BICUBIC)
    corner = (int(x * SCALE) - turned.width + 10 * SCALE, int((_y(0) + 6) * SCALE))
    canvas.image.paste(INK, (*corner, corner[0] + turned.width, corner[1] + turned.height), turned)


def _y(value: float) -> float:
    return TOP + (1 - value) * HEIGHT
