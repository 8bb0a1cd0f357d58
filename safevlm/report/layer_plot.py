"""A plot of a measure over the layers of a model, as a PNG."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from safevlm.report.canvas import GRID, Canvas

SIZE = (900, 480)
"""Pixels of the plot."""
LEFT, TOP, RIGHT, BOTTOM = 70, 60, 20, 60
"""Margins in pixels."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito, told apart by the colour-blind (https://jfly.uni-koeln.de/color)."""
MARK = "#f2efe0"
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
    plot.canvas.legend(lines, COLOURS, left=LEFT)
    return plot.canvas.png()


class _Plot:
    """A canvas with an axis of layers and one of values."""

    def __init__(self, lines: Mapping[str, Mapping[int, float]]) -> None:
        self.canvas = Canvas(SIZE)
        self.layers = sorted({layer for values in lines.values() for layer in values})
        self.low = 0.5 if min(min(values.values()) for values in lines.values()) >= 0.5 else 0.0
        self.step = (SIZE[0] - LEFT - RIGHT) / len(self.layers)

    def axes(self, marked: Collection[int], *, title: str, unit: str) -> None:
        """Shaded layers, grid, numbers and names."""
        bottom, right = SIZE[1] - BOTTOM, SIZE[0] - RIGHT
        for layer in marked:
            x = self._x(layer)
            self.canvas.box(x - self.step / 2, TOP, x + self.step / 2, bottom, MARK)
        for tick in range(6):
            value = self.low + (1 - self.low) * tick / 5
            self.canvas.line([(LEFT, self._y(value)), (right, self._y(value))], GRID)
            self.canvas.text(LEFT - 8, self._y(value), f"{value:.1f}", anchor="rm")
        every = -(-len(self.layers) // LABELS)
        for layer in self.layers[::every]:
            self.canvas.text(self._x(layer), bottom + 8, str(layer), anchor="mt")
        middle = (LEFT + right) / 2
        self.canvas.text(middle, SIZE[1] - 12, "layer" + (" (shaded: chosen)" if marked else ""), anchor="ms")
        self.canvas.text(12, 14, unit, anchor="lt")
        self.canvas.text(middle, 14, title, anchor="mt")

    def line(self, values: Mapping[int, float], colour: str) -> None:
        """A line with a dot at each value."""
        points = [(self._x(layer), self._y(values[layer])) for layer in sorted(values)]
        self.canvas.line(points, colour, width=3)
        for x, y in points:
            self.canvas.dot(x, y, colour)

    def _x(self, layer: int) -> float:
        return LEFT + (self.layers.index(layer) + 0.5) * self.step

    def _y(self, value: float) -> float:
        return TOP + (1 - value) / (1 - self.low) * (SIZE[1] - TOP - BOTTOM)
