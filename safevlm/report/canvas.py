"""What plots are drawn on: lines, bars, dots and text with a legend, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

SCALE = 2
"""A plot is drawn so many times larger and scaled down, as Pillow's lines have steps."""
LEGEND = 46
"""Pixels from the top to the middle of the legend."""
INK, GRID = "#222222", "#dddddd"

Point = tuple[float, float]


class Canvas:
    """A white plot; positions and widths are in its pixels, y from the top.

    Args:
        size: (width, height) in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), "white")
        self._draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], colour: str, *, width: int = 1) -> None:
        """A line through the points, in this order."""
        places = [_scaled(*point) for point in points]
        self._draw.line(places, fill=colour, width=width * SCALE, joint="curve")

    def dot(self, x: float, y: float, colour: str, *, radius: float = 4) -> None:
        """A disc."""
        self._draw.ellipse(_scaled(x - radius, y - radius, x + radius, y + radius), fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """A filled rectangle."""
        self._draw.rectangle(_scaled(left, top, right, bottom), fill=colour)

    def interval(self, x: float, low: float, high: float) -> None:
        """A vertical line with a bar at either end."""
        self.line([(x, low), (x, high)], INK)
        for end in (low, high):
            self.line([(x - 4, end), (x + 4, end)], INK)

    def text(self, x: float, y: float, text: str, *, anchor: str) -> None:
        """Text; `anchor` says which point of it lies at (x, y), as in Pillow: "lt" is left and top, "mm" the middle."""
        self._draw.text((x * SCALE, y * SCALE), text, fill=INK, font=font(), anchor=anchor)

    def legend(self, names: Collection[str], colours: Sequence[str], *, left: float) -> None:
        """Names behind a stroke of their colours, in a row at `LEGEND`."""
        x = left
        for colour, name in zip(colours, names, strict=False):
            self.line([(x, LEGEND), (x + 24, LEGEND)], colour, width=3)
            self.text(x + 30, LEGEND, name, anchor="lm")
            x += 60 + self._draw.textlength(name, font=font()) / SCALE

    def png(self) -> bytes:
        """The plot as the bytes of a PNG."""
        buffer = io.BytesIO()
        self.image.reduce(SCALE).save(buffer, "PNG")
        return buffer.getvalue()


@lru_cache(maxsize=1)
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, which covers Latin letters."""
    return ImageFont.load_default(15 * SCALE)


def _scaled(*values: float) -> tuple[float, ...]:
    return tuple(value * SCALE for value in values)
