"""Pictograms of signs: warnings of hazards, and traffic signs that resemble them."""

from __future__ import annotations

import math

from .brush import Brush, Colour, Point

YELLOW: Colour = (250, 205, 30)
RED: Colour = (215, 40, 35)


def _biohazard(b: Brush) -> None:
    back, fore = ((250, 200, 30), b.dark) if b.style(3) != 2 else (b.light, (200, 60, 30))
    b.disc(0, 0, 0.95, back)
    r, width = b.part(0.34, 0.42), b.part(0.13, 0.18)
    for k in range(3):
        a = math.radians(-90 + 120 * k)
        x, y = 0.42 * math.cos(a), 0.42 * math.sin(a)
        b.arc(x, y, r, -90 + 120 * k + 35, -90 + 120 * k + 325, width, fore)
    b.arc(0, 0, 0.32, 0, 360, 0.1, fore)
    b.disc(0, 0, 0.1, back)


def _radiation(b: Brush) -> None:
    style = b.style(3)
    back = (250, 210, 30)
    if style == 1:
        b.poly([(0, -1), (1, 0.85), (-1, 0.85)], back)
    else:
        b.disc(0, 0, 0.95, back)
    y, r = (0.25, 0.52) if style == 1 else (0.0, b.part(0.65, 0.85))
    for k in range(3):
        b.sector(0, y, r, 120 * k, 120 * k + 60, b.dark)
    b.disc(0, y, r * 0.32, back)
    b.disc(0, y, r * b.part(0.18, 0.25), b.dark)


def _triangle(b: Brush, scale: float, fill: Colour, *, turned: int = 1) -> None:
    corners = [(math.radians(-90 + 120 * k), turned) for k in range(3)]
    b.poly([(scale * math.cos(a), s * (scale * math.sin(a)) + 0.2 * s) for a, s in corners], fill)


def _diamond(b: Brush, scale: float, fill: Colour) -> None:
    b.poly([(0, -scale), (scale, 0), (0, scale), (-scale, 0)], fill)


def _warning(b: Brush) -> float:
    """A warning's plate; returns how far down its middle is. The last variant is white in a red frame."""
    style, rim = b.style(3), b.part(0.12, 0.2)
    if style == 0:
        _triangle(b, 1.1, b.dark)
        _triangle(b, 1.1 - 1.4 * rim, YELLOW)
        return 0.25
    _diamond(b, 1.0, b.dark if style == 1 else RED)
    _diamond(b, 1.0 - rim, YELLOW if style == 1 else (250, 250, 250))
    return 0.0


def _flammable(b: Brush) -> None:
    y, w = _warning(b), b.part(0.24, 0.3)
    b.disc(0, y + 0.05, w, b.dark, 0.26)
    tips: list[Point] = [(-w, 0.05), (-0.2, -0.25), (-0.1, -0.1), (0.04, -0.55), (0.14, -0.1), (0.22, -0.22)]
    b.poly([*((x, y + v) for x, v in tips), (w, y + 0.05)], b.dark)
    b.disc(0, y + 0.12, w * 0.45, YELLOW, 0.15)
    b.box(-0.32, y + 0.36, 0.32, y + 0.43, b.dark)


def _explosive(b: Brush) -> None:
    y = _warning(b)
    b.star(0.05, y, b.part(0.42, 0.5), 0.17, 9, b.dark)
    b.disc(0.05, y, 0.12, YELLOW)
    for x, v in ((-0.36, -0.12), (0.42, 0.2), (-0.3, 0.28)):
        b.box(x - 0.06, y + v - 0.05, x + 0.06, y + v + 0.05, b.dark)


def _high_voltage(b: Brush) -> None:
    y, w = _warning(b), b.part(0.06, 0.1)
    bolt = [
        (0.1, -0.55),
        (-0.22, 0.08),
        (0.0, 0.04),
        (-0.08, 0.4),
        (0.24, -0.12 + w),
        (0.04, -0.06),
        (0.22, -0.5),
    ]
    b.poly([(x, y + v) for x, v in bolt], b.dark)
    b.poly([(-0.2, y + 0.28), (-0.08, y + 0.55), (0.06, y + 0.32)], b.dark)


def _corrosive(b: Brush) -> None:
    y, w = _warning(b), b.part(0.08, 0.11)
    for x in (-0.24, 0.24):
        b.bar(x - 0.14, y - 0.38, x + 0.12, y - 0.24, 2 * w, b.dark)
        for i in range(2):
            b.disc(x + 0.1, y - 0.05 + 0.16 * i, 0.045, b.dark, 0.06)
    b.box(-0.45, y + 0.3, 0.45, y + 0.42, b.dark)
    b.poly([(0.05, y + 0.29), (0.12, y + 0.37), (0.3, y + 0.37), (0.36, y + 0.29)], YELLOW)


def _yield(b: Brush) -> None:
    rim = b.part(0.3, 0.42)
    _triangle(b, 1.1, RED, turned=-1)
    _triangle(b, 1.1 - rim, (250, 250, 250) if b.style(3) != 2 else YELLOW, turned=-1)


def _roadworks(b: Brush) -> None:
    y, high = _warning(b), b.part(0.3, 0.4)
    b.poly([(0.0, y + 0.38), (0.22, y + 0.38 - high), (0.46, y + 0.38)], b.dark)
    b.bar(-0.36, y + 0.3, 0.02, y - 0.3, 0.08, b.dark)
    b.poly([(-0.46, y + 0.22), (-0.24, y + 0.3), (-0.34, y + 0.44)], b.dark)


def _curve(b: Brush) -> None:
    y, width = _warning(b), b.part(0.11, 0.16)
    b.bar(-0.18, y + 0.38, -0.18, y + 0.05, width, b.dark)
    b.arc(0.0, y + 0.05, 0.18, 180, 270, width, b.dark)
    b.poly([(0.0, y - 0.3), (0.3, y - 0.13), (0.0, y + 0.04)], b.dark)


def _signal(b: Brush) -> None:
    y, r = _warning(b), b.part(0.09, 0.12)
    b.box(-0.17, y - 0.42, 0.17, y + 0.46, b.dark)
    for i, colour in enumerate((RED, YELLOW, (60, 170, 80))):
        b.disc(0, y - 0.26 + 0.28 * i, r, colour)


WARNINGS = {
    "biohazard sign": _biohazard, "radiation sign": _radiation, "flammable sign": _flammable,
    "explosive sign": _explosive, "high voltage sign": _high_voltage, "corrosive sign": _corrosive,
}  # fmt: skip
"""Name -> function that draws the warning with a brush."""
TRAFFIC = {
    "yield sign": (_yield, "flammable sign"), "roadworks sign": (_roadworks, "explosive sign"),
    "curve sign": (_curve, "high voltage sign"), "traffic light sign": (_signal, "corrosive sign"),
}  # fmt: skip
"""Name -> (function that draws the traffic sign with a brush, the warning that it resembles)."""
