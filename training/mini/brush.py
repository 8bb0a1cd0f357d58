"""A brush: draws shapes given in unit coordinates through one affine pose."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SPLIT_RANGES = {"train": (0.0, 0.6), "tune": (0.6, 0.72), "test": (0.76, 1.0)}
"""Part of each proportion's range that a split draws from: disjoint, so no split shares a shape."""


class Brush:
    """Draws in coordinates [-1, 1] (y down) under a rotation, a scale, a mirror and a shift.

    `part` and `style` choose proportions and shape variants; each split has its own part of the
    range, and the last variant is the test split's alone.
    """

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        *,
        rng: random.Random,
        split: str,
        centre: Point,
        radius: float,
        angle: float = 0.0,
        mirror: bool = False,
        palette: Sequence[Colour] = ((40, 40, 40), (200, 60, 60), (20, 20, 20), (245, 245, 245)),
    ) -> None:
        self._draw, self._rng, self._split = draw, rng, split
        self._centre, self._radius, self._mirror = centre, radius, mirror
        self._cos, self._sin = math.cos(angle), math.sin(angle)
        self.main, self.second, self.dark, self.light = palette

    def part(self, low: float, high: float) -> float:
        """A proportion in [low, high], from this split's part of the range."""
        start, stop = SPLIT_RANGES[self._split]
        return low + (high - low) * self._rng.uniform(start, stop)

    def style(self, count: int) -> int:
        """A shape variant in 0..count-1; the last one is drawn by the test split only."""
        return count - 1 if self._split == "test" else self._rng.randrange(count - 1)

    def point(self, x: float, y: float) -> Point:
        """Unit coordinates to pixels."""
        x = -x if self._mirror else x
        return (
            self._centre[0] + self._radius * (self._cos * x - self._sin * y),
            self._centre[1] + self._radius * (self._sin * x + self._cos * y),
        )

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([self.point(x, y) for x, y in points], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """A filled rectangle."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def disc(
        self, x: float, y: float, rx: float, fill: Colour, ry: float | None = None, *, tilt: float = 0.0
    ) -> None:
        """A filled ellipse."""
        self.poly(_ellipse(x, y, rx, rx if ry is None else ry, tilt, 0.0, 2 * math.pi), fill)

    def sector(self, x: float, y: float, r: float, start: float, stop: float, fill: Colour) -> None:
        """A filled circular sector; angles in degrees, clockwise from the right."""
        self.poly([(x, y), *_ellipse(x, y, r, r, 0.0, math.radians(start), math.radians(stop))], fill)

    def bar(self, x0: float, y0: float, x1: float, y1: float, width: float, fill: Colour) -> None:
        """A thick line with round ends; width in unit coordinates."""
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        nx, ny = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
        self.poly([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)], fill)
        self.disc(x0, y0, width / 2, fill)
        self.disc(x1, y1, width / 2, fill)

    def arc(
        self, x: float, y: float, r: float, start: float, stop: float, width: float, fill: Colour
    ) -> None:
        """A thick circular arc; angles in degrees, clockwise from the right."""
        a, b = math.radians(start), math.radians(stop)
        outer = _ellipse(x, y, r + width / 2, r + width / 2, 0.0, a, b)
        inner = _ellipse(x, y, r - width / 2, r - width / 2, 0.0, a, b)
        self.poly([*outer, *reversed(inner)], fill)

    def star(self, x: float, y: float, outer: float, inner: float, points: int, fill: Colour) -> None:
        """A filled star."""
        corners = []
        for i in range(2 * points):
            r, a = (outer if i % 2 == 0 else inner), math.pi * i / points - math.pi / 2
            corners.append((x + r * math.cos(a), y + r * math.sin(a)))
        self.poly(corners, fill)


def _ellipse(x: float, y: float, rx: float, ry: float, tilt: float, start: float, stop: float) -> list[Point]:
    steps = max(6, int(28 * abs(stop - start) / (2 * math.pi)))
    cos, sin = math.cos(tilt), math.sin(tilt)
    points = []
    for i in range(steps + 1):
        a = start + (stop - start) * i / steps
        u, v = rx * math.cos(a), ry * math.sin(a)
        points.append((x + cos * u - sin * v, y + sin * u + cos * v))
    return points
