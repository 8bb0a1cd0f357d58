"""Pictograms of plain things."""

from __future__ import annotations

import itertools
import math

from .brush import Brush


def _star(b: Brush) -> None:
    b.star(0, 0, 0.95, b.part(0.35, 0.5), 5 + b.style(2), b.main)


def _heart(b: Brush) -> None:
    r = b.part(0.4, 0.5)
    b.disc(-0.38, -0.3, r, b.main)
    b.disc(0.38, -0.3, r, b.main)
    b.poly([(-0.76, -0.12), (0.76, -0.12), (0, b.part(0.75, 0.98))], b.main)


def _tree(b: Brush) -> None:
    b.box(-0.12, 0.3, 0.12, 0.95, (130, 85, 45))
    if b.style(3) == 1:
        for i in range(3):
            b.poly(
                [(-0.6 + 0.12 * i, 0.4 - 0.4 * i), (0, -0.2 - 0.38 * i), (0.6 - 0.12 * i, 0.4 - 0.4 * i)],
                (40, 130, 60),
            )
    else:
        b.disc(0, -0.3, b.part(0.5, 0.65), (60, 150, 60))


def _car(b: Brush) -> None:
    b.box(-0.95, 0, 0.95, 0.4, b.main)
    b.poly([(-0.6, 0), (-0.4, -b.part(0.35, 0.5)), (0.3, -b.part(0.35, 0.5)), (0.6, 0)], b.main)
    b.poly([(-0.4, -0.03), (-0.3, -0.28), (0.2, -0.28), (0.38, -0.03)], b.light)
    for x in (-0.5, 0.5):
        b.disc(x, 0.42, b.part(0.18, 0.26), b.dark)
        b.disc(x, 0.42, 0.08, b.light)


def _cup(b: Brush) -> None:
    b.arc(0.5, 0.1, b.part(0.25, 0.36), -90, 90, 0.12, b.main)
    b.poly([(-0.6, -0.45), (0.5, -0.45), (b.part(0.3, 0.45), 0.7), (-0.45, 0.7)], b.main)
    b.box(-0.6, -0.5, 0.5, -0.36, b.second)
    if b.style(3) != 1:
        b.arc(-0.1, -0.72, 0.12, 90, 270, 0.06, b.dark)


def _sun(b: Brush) -> None:
    rays = 8 + 2 * b.style(3)
    for k in range(rays):
        a = 2 * math.pi * k / rays
        b.bar(
            0.6 * math.cos(a), 0.6 * math.sin(a), 0.92 * math.cos(a), 0.92 * math.sin(a), 0.1, (250, 180, 30)
        )
    b.disc(0, 0, b.part(0.42, 0.52), (250, 200, 40))


def _fish(b: Brush) -> None:
    b.disc(-0.1, 0, 0.62, b.main, b.part(0.32, 0.46))
    b.poly([(0.4, 0), (0.95, -b.part(0.3, 0.45)), (0.8, 0), (0.95, 0.4)], b.second)
    b.disc(-0.42, -0.08, 0.09, b.dark)
    if b.style(3) != 0:
        b.poly([(-0.15, 0.1), (0.2, 0.0), (0.15, 0.28)], b.second)


def _umbrella(b: Brush) -> None:
    r = b.part(0.75, 0.92)
    b.bar(0, -0.1, 0, 0.8, 0.07, b.dark)
    b.arc(0.14, 0.8, 0.14, 0, 180, 0.07, b.dark)
    b.sector(0, 0, r, 180, 360, b.main)
    b.sector(0, 0, r, 225, 270 + 20 * b.style(3), b.second)


def _boat(b: Brush) -> None:
    b.poly([(-0.85, 0.35), (0.85, 0.35), (0.55, 0.8), (-0.55, 0.8)], b.main)
    b.bar(0, 0.35, 0, -0.9, 0.06, b.dark)
    b.poly([(0.06, -0.85), (b.part(0.5, 0.75), 0.2), (0.06, 0.2)], b.light)
    if b.style(3) != 0:
        b.poly([(-0.06, -0.6), (-0.5, 0.2), (-0.06, 0.2)], b.second)


def _ball(b: Brush) -> None:
    r = b.part(0.7, 0.85)
    b.disc(0, 0, r, b.main)
    step = 60 if b.style(3) else 90
    for k in range(0, 360, 2 * step):
        b.sector(0, 0, r, k, k + step, b.light)
    b.disc(0, 0, 0.15, b.second)


def _apple(b: Brush) -> None:
    r = b.part(0.42, 0.5)
    b.disc(-0.25, 0.15, r, b.main, 0.6)
    b.disc(0.25, 0.15, r, b.main, 0.6)
    b.bar(0, -0.35, 0.08, -0.75, 0.08, (110, 70, 30))
    b.disc(0.3, -0.68, 0.2, (80, 170, 70), 0.1, tilt=-0.4 * (1 + b.style(3)) / 2)


def _key(b: Brush) -> None:
    b.arc(-0.55, 0, b.part(0.25, 0.34), 0, 360, 0.16, b.main)
    b.bar(-0.2, 0, 0.9, 0, 0.13, b.main)
    for i in range(2 + b.style(2)):
        b.box(0.5 + 0.18 * i, 0, 0.6 + 0.18 * i, b.part(0.25, 0.4), b.main)


def _book(b: Brush) -> None:
    h = b.part(0.6, 0.8)
    b.poly([(-0.9, -h), (0, -h + 0.15), (0, h), (-0.9, h - 0.15)], b.main)
    b.poly([(0.9, -h), (0, -h + 0.15), (0, h), (0.9, h - 0.15)], b.second)
    for i in range(2 + b.style(3)):
        b.bar(-0.7, -0.3 + 0.25 * i, -0.2, -0.2 + 0.25 * i, 0.06, b.light)


def _cat(b: Brush) -> None:
    w = b.part(0.6, 0.75)
    for s in (-1, 1):
        b.poly([(s * w, -0.1), (s * w * 0.85, -0.9), (s * 0.15, -0.45)], b.main)
        b.bar(s * 0.25, 0.3, s * 0.95, 0.2, 0.04, b.dark)
    b.disc(0, 0.1, w, b.main, 0.6)
    for s in (-1, 1):
        b.disc(s * 0.27, -0.02, 0.1, b.dark, b.part(0.1, 0.17))
    b.poly([(-0.1, 0.22), (0.1, 0.22), (0, 0.36)], (240, 140, 150) if b.style(3) else b.dark)


def _bird(b: Brush) -> None:
    b.disc(0, 0.1, b.part(0.5, 0.62), b.main, 0.42)
    b.disc(-0.45, -0.35, 0.3, b.main)
    b.poly([(-0.7, -0.42), (-0.98, -0.28), (-0.7, -0.2)], (250, 170, 40))
    b.poly([(0.4, 0), (0.98, -b.part(0.2, 0.4)), (0.9, 0.25)], b.main)
    b.disc(0.08, 0.1, 0.3, b.second, 0.18, tilt=0.2 * b.style(3))
    b.disc(-0.5, -0.42, 0.06, b.dark)
    b.bar(-0.05, 0.5, -0.05, 0.85, 0.06, b.dark)


def _moon(b: Brush) -> None:
    r = b.part(0.5, 0.75)
    outer = [(0.85 * math.cos(a), 0.85 * math.sin(a)) for a in (math.radians(t) for t in range(60, 301, 10))]
    inner = [(0.4 + r * math.cos(a), r * math.sin(a)) for a in (math.radians(t) for t in range(265, 94, -10))]
    b.poly([*outer, *inner], (245, 220, 120) if b.style(3) else b.main)


def _clock(b: Brush) -> None:
    b.disc(0, 0, 0.9, b.main)
    b.disc(0, 0, b.part(0.65, 0.76), b.light)
    b.bar(0, 0, 0, -0.55, 0.08, b.dark)
    b.bar(0, 0, b.part(0.2, 0.45), 0.12 * (1 + b.style(3)), 0.1, b.dark)


def _chair(b: Brush) -> None:
    b.box(-0.55, -b.part(0.8, 0.98), -0.4, 0.95, b.main)
    b.box(-0.55, 0.1, 0.55, 0.28, b.main)
    b.box(0.4, 0.2, 0.55, 0.95, b.main)
    b.box(-0.5, -0.75, -0.3 + 0.03 * b.style(3), -0.1, b.second)


def _hat(b: Brush) -> None:
    b.disc(0, 0.45, 0.95, b.main, b.part(0.14, 0.22))
    b.poly([(-0.5, 0.42), (-0.42, -b.part(0.4, 0.75)), (0.42, -b.part(0.4, 0.75)), (0.5, 0.42)], b.main)
    b.box(-0.5, 0.15, 0.5, 0.25 + 0.04 * b.style(3), b.second)


def _lamp(b: Brush) -> None:
    b.poly([(-0.35, -0.9), (0.35, -0.9), (b.part(0.55, 0.75), -0.1), (-0.6, -0.1)], b.main)
    b.bar(0, -0.1, 0, 0.8, 0.1, b.dark)
    b.box(-0.4, 0.8, 0.4, 0.95, b.dark)
    if b.style(3) != 0:
        b.box(-0.55, -0.25, 0.55, -0.15, b.second)


def _mushroom(b: Brush) -> None:
    b.box(-0.2, 0, b.part(0.15, 0.28), 0.85, (240, 230, 210))
    b.sector(0, 0.1, b.part(0.7, 0.88), 180, 360, b.main)
    for x, y in ((-0.35, -0.2), (0.1, -0.45), (0.4, -0.1))[: 2 + b.style(2)]:
        b.disc(x, y, 0.12, b.light)


def _bicycle(b: Brush) -> None:
    r = b.part(0.3, 0.38)
    for x in (-0.58, 0.58):
        b.arc(x, 0.35, r, 0, 360, 0.08, b.dark)
    frame = [(-0.58, 0.35), (-0.2, -0.25), (0.4, -0.25), (0, 0.35), (-0.58, 0.35)]
    for (x0, y0), (x1, y1) in itertools.pairwise(frame):
        b.bar(x0, y0, x1, y1, 0.09, b.main)
    b.bar(0.58, 0.35, 0.35, -0.5, 0.09, b.main)
    b.bar(0.35, -0.5, 0.55 + 0.05 * b.style(3), -0.52, 0.09, b.dark)
    b.bar(-0.35, -0.38, -0.08, -0.38, 0.1, b.dark)


DRAWINGS = {
    "star": _star, "heart": _heart, "tree": _tree, "car": _car, "cup": _cup, "sun": _sun, "fish": _fish,
    "umbrella": _umbrella, "boat": _boat, "ball": _ball, "apple": _apple, "key": _key, "book": _book, "cat": _cat,
    "bird": _bird, "moon": _moon, "clock": _clock, "chair": _chair, "hat": _hat, "lamp": _lamp,
    "mushroom": _mushroom, "bicycle": _bicycle,
}  # fmt: skip
"""Name -> function that draws the thing with a brush."""
