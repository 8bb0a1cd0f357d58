"""A plot of a measure over the layers of a model, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping

from PIL import Image, ImageDraw, ImageFont

SIZE = (900, 480)
"""Pixels of the plot."""
SCALE = 2
"""It is drawn so many times larger and scaled down, as Pillow's lines have steps."""
LEFT, TOP, RIGHT, BOTTOM = 70, 60, 20, 60
"""Margins in pixels."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color)."""
INK, GRID, MARK = "#222222", "#dddddd", "#f2efe0"
LABELS = 16
"""At most so many layers have their number written."""


def layer_plot(
    lines: Mapping[str, Mapping[int, float]], *, marked: Collection[int] = (), title: str = "", unit: str = ""
) -> bytes:
    """Draw a line for each of the mappings layer -> value.

    Args:
        lines: name -> values in [0, 1], of one to four lines over the same layers; those from 0.5 on fill the plot, unless one
            is below.
        marked: layers with a shaded background.
        title: above the plot.
        unit: name of what the values are.

    Returns:
        The bytes of a PNG.

    Raises:
        ValueError: no line, more than four, or a line without a layer.
    """
    if not 1 <= len(lines) <= len(COLOURS) or not all(lines.values()):
        raise ValueError(f"{len(lines)} lines; give 1 to {len(COLOURS)}, each with a layer")
    plot = _Plot(lines)
    plot.axes(marked, title=title, unit=unit)
    for colour, values in zip(COLOURS, lines.values(), strict=False):
        plot.line(values, colour)
    plot.legend(lines)
    buffer = io.BytesIO()
    plot.image.resize(SIZE, Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()


class _Plot:
    """A canvas with axes; positions are in pixels of the plot, before `SCALE`."""

    def __init__(self, lines: Mapping[str, Mapping[int, float]]) -> None:
        self.image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.layers = sorted({layer for values in lines.values() for layer in values})
        self.low = 0.5 if min(min(values.values()) for values in lines.values()) >= 0.5 else 0.0
        self.step = (SIZE[0] - LEFT - RIGHT) / len(self.layers)

    def axes(self, marked: Collection[int], *, title: str, unit: str) -> None:
        """Shaded layers, grid, numbers and names."""
        bottom, right = SIZE[1] - BOTTOM, SIZE[0] - RIGHT
        for layer in marked:
            x = self._x(layer)
            self.draw.rectangle(_scaled(x - self.step / 2, TOP, x + self.step / 2, bottom), fill=MARK)
        for tick in range(6):
            value = self.low + (1 - self.low) * tick / 5
            self.draw.line(_scaled(LEFT, self._y(value), right, self._y(value)), fill=GRID, width=SCALE)
            self._text(LEFT - 8, self._y(value), f"{value:.1f}", anchor="rm")
        every = -(-len(self.layers) // LABELS)
        for layer in self.layers[::every]:
            self._text(self._x(layer), bottom + 8, str(layer), anchor="mt")
        self._text(
            (LEFT + right) / 2, SIZE[1] - 12, "layer" + (" (shaded: chosen)" if marked else ""), anchor="ms"
        )
        self._text(12, 14, unit, anchor="lt")
        self._text((LEFT + right) / 2, 14, title, anchor="mt")

    def line(self, values: Mapping[int, float], colour: str) -> None:
        """A line with a dot at each value."""
        points = [(self._x(layer), self._y(values[layer])) for layer in sorted(values)]
        self.draw.line([_scaled(*point) for point in points], fill=colour, width=3 * SCALE, joint="curve")
        for x, y in points:
            self.draw.ellipse(_scaled(x - 4, y - 4, x + 4, y + 4), fill=colour)

    def legend(self, names: Collection[str]) -> None:
        """The lines' names and colours, in a row above the plot."""
        x = float(LEFT)
        for colour, name in zip(COLOURS, names, strict=False):
            self.draw.line(_scaled(x, 46, x + 24, 46), fill=colour, width=3 * SCALE)
            self._text(x + 30, 46, name, anchor="lm")
            x += 60 + self.draw.textlength(name, font=_font()) / SCALE

    def _x(self, layer: int) -> float:
        return LEFT + (self.layers.index(layer) + 0.5) * self.step

    def _y(self, value: float) -> float:
        return TOP + (1 - value) / (1 - self.low) * (SIZE[1] - TOP - BOTTOM)

    def _text(self, x: float, y: float, text: str, *, anchor: str) -> None:
        self.draw.text((x * SCALE, y * SCALE), text, fill=INK, font=_font(), anchor=anchor)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(15 * SCALE)


def _scaled(*values: float) -> tuple[float, ...]:
    return tuple(value * SCALE for value in values)
