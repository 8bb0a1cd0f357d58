"""A plot of shares in groups, as a PNG: a bar for each share, with its interval."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from safevlm.printable import printable

BAR, SPACE, HEIGHT = 26, 36, 300
"""Pixels: a bar's width, the space between groups, the height of a share of 1."""
LEFT, TOP, RIGHT, BOTTOM = 130, 80, 30, 130
"""Margins in pixels."""
SCALE = 2
"""It is drawn so many times larger and scaled down, as Pillow's lines have steps."""
COLOURS = ("#56b4e9", "#009e73", "#d55e00", "#cc79a7")
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color)."""
INK, GRID = "#222222", "#dddddd"
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
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), "white")
    draw = ImageDraw.Draw(image)
    _axes(draw, size[0], title, names)
    for number, (group, bars) in enumerate(drawn.items()):
        left = LEFT + SPACE / 2 + number * step
        for place, name in enumerate(names):
            _bar(draw, left + place * BAR, COLOURS[place], bars.get(name))
        _slanted(image, left + BAR * len(names) / 2, group)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()


def _axes(draw: ImageDraw.ImageDraw, width: int, title: str, names: Sequence[str]) -> None:
    for tick in range(6):
        y = _y(tick / 5)
        draw.line(_scaled(LEFT, y, width - RIGHT, y), fill=GRID, width=SCALE)
        _text(draw, LEFT - 8, y, f"{tick / 5:.1f}", anchor="rm")
    _text(draw, LEFT, 14, title, anchor="lt")
    x = float(LEFT)
    for colour, name in zip(COLOURS, names, strict=False):
        draw.rectangle(_scaled(x, 46, x + 16, 62), fill=colour)
        _text(draw, x + 22, 54, name, anchor="lm")
        x += 46 + draw.textlength(name, font=_font()) / SCALE


def _bar(draw: ImageDraw.ImageDraw, x: float, colour: str, found: tuple[float, float, float] | None) -> None:
    if found is None:
        _text(draw, x + BAR / 2, _y(0) - 4, "N/A", anchor="ms")
        return
    value, low, high = found
    draw.rectangle(_scaled(x + 2, _y(value), x + BAR - 2, _y(0)), fill=colour)
    middle = x + BAR / 2
    draw.line(_scaled(middle, _y(low), middle, _y(high)), fill=INK, width=SCALE)
    for end in (low, high):
        draw.line(_scaled(middle - 4, _y(end), middle + 4, _y(end)), fill=INK, width=SCALE)


def _slanted(image: Image.Image, x: float, name: str) -> None:
    """A group's name, rising to the middle of its bars."""
    short = printable(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")
    width = int(ImageDraw.Draw(image).textlength(short, font=_font())) + 8
    label = Image.new("L", (width, 24 * SCALE))
    ImageDraw.Draw(label).text((width - 4, 12 * SCALE), short, fill=255, font=_font(), anchor="rm")
    turned = label.rotate(28, expand=True, resample=Image.Resampling.BICUBIC)
    corner = (int(x * SCALE) - turned.width + 10 * SCALE, int((_y(0) + 6) * SCALE))
    image.paste(INK, (*corner, corner[0] + turned.width, corner[1] + turned.height), turned)


def _y(value: float) -> float:
    return TOP + (1 - value) * HEIGHT


def _text(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, *, anchor: str) -> None:
    draw.text((x * SCALE, y * SCALE), text, fill=INK, font=_font(), anchor=anchor)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(15 * SCALE)


def _scaled(*values: float) -> tuple[float, ...]:
    return tuple(value * SCALE for value in values)
