"""Lines and points in the unit square, as a page draws them in SVG: ROC, precision and recall, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 360, 300
"""Of the drawing, in its own units, about a pixel each."""
LEFT, TOP, RIGHT, BOTTOM = 54, 12, 12, 42
"""Margins around the square."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
COLOURS = 7
"""Lines of different colours; further ones take them again."""


@dataclass(frozen=True)
class Dot:
    """A point with its interval in y, all in [0, 1]; `text` is shown where a reader points at it."""

    x: float
    y: float
    low: float
    high: float
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing in the unit square.

    Args:
        title: above it.
        x, y: what the axes are.
        lines: name -> points (x, y), from left to right; names are told below where there are several.
        dots: over the lines.
        diagonal: whether the line x = y is drawn, to compare with.
    """

    title: str
    x: str
    y: str
    lines: dict[str, Sequence[tuple[float, float]]]
    dots: Sequence[Dot] = ()
    diagonal: bool = False

    def drawing(self) -> dict[str, Any]:
        """What the template `chart.html` needs, in the drawing's units."""
        return {
            "title": self.title,
            "x": self.x,
            "y": self.y,
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
            "x_ticks": [(_across(tick), f"{tick:g}") for tick in TICKS],
            "y_ticks": [(_down(tick), f"{tick:g}") for tick in TICKS],
            "diagonal": self.diagonal,
            "lines": [
                {"name": name, "colour": number % COLOURS, "path": _path(points)}
                for number, (name, points) in enumerate(self.lines.items())
            ],
            "dots": [
                {
                    "x": _across(dot.x),
                    "y": _down(dot.y),
                    "low": _down(dot.low),
                    "high": _down(dot.high),
                    "text": dot.text,
                }
                for dot in self.dots
            ],
        }


def _across(x: float) -> float:
    return round(LEFT + x * (WIDTH - LEFT - RIGHT), 1)


def _down(y: float) -> float:
    return round(TOP + (1 - y) * (HEIGHT - TOP - BOTTOM), 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_across(x)},{_down(y)}" for x, y in points)
