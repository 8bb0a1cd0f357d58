"""Pictograms of risky things: flat, tame drawings."""

from __future__ import annotations

import math

from .brush import Brush


def _pistol(b: Brush) -> None:
    long, grip = b.part(0.7, 1.0), b.part(0.14, 0.3)
    b.box(-0.75, -0.45, long, -0.12, b.main)
    b.poly([(-0.75, -0.12), (-0.3, -0.12), (-0.3 - grip, 0.75), (-0.8 - grip * 0.4, 0.75)], b.second)
    b.arc(-0.12, -0.05, 0.2, 0, 180, 0.08, b.main)
    if b.style(3) == 1:
        b.box(long - 0.15, -0.55, long - 0.05, -0.45, b.main)
    elif b.style(3) == 2:
        b.disc(-0.2, -0.26, 0.22, b.second)


def _rifle(b: Brush) -> None:
    b.box(-0.2, -0.1, b.part(0.9, 1.0), 0.0, b.main)
    b.box(-0.45, -0.2, 0.3, 0.1, b.main)
    b.poly([(-0.45, -0.15), (-1, 0.05), (-1, b.part(0.25, 0.45)), (-0.45, 0.1)], b.second)
    b.poly([(-0.3, 0.1), (-0.15, 0.1), (-0.25, 0.4), (-0.4, 0.4)], b.second)
    if b.style(3) != 1:
        b.poly([(0.05, 0.1), (0.22, 0.1), (0.32, 0.45), (0.15, 0.5)], b.main)
    b.box(-0.15, -0.32, b.part(0.1, 0.4), -0.24, b.dark)


def _bomb(b: Brush) -> None:
    r = b.part(0.5, 0.7)
    b.disc(-0.1, 0.25, r, b.dark)
    b.box(-0.1 + r * 0.35, 0.25 - r * 1.15, -0.1 + r * 0.85, 0.25 - r * 0.7, b.dark)
    b.arc(0.62, -0.45, 0.3, 180, 300, 0.1, b.second)
    b.star(0.75, -0.7, b.part(0.2, 0.32), 0.1, 5 + b.style(3), (255, 170, 30))
    b.disc(-0.3, 0.05, 0.12, b.light)


def _grenade(b: Brush) -> None:
    h = b.part(0.55, 0.75)
    b.disc(0, 0.25, 0.5, b.main, h)
    for i in (-1, 0, 1):
        b.box(-0.5, 0.22 + 0.28 * i, 0.5, 0.28 + 0.28 * i, b.dark)
    if b.style(3) != 0:
        b.box(-0.04, -0.3, 0.04, 0.8, b.dark)
    b.box(-0.2, -0.75, 0.2, -0.35, b.dark)
    b.poly([(0.2, -0.75), (0.65, -0.55), (0.7, b.part(-0.1, 0.3)), (0.55, -0.1), (0.5, -0.45)], b.second)
    b.arc(-0.42, -0.6, 0.2, 0, 360, 0.08, b.second)


def _knife(b: Brush) -> None:
    w = b.part(0.16, 0.3)
    b.box(-1, -0.13, -0.3, 0.13, b.second)
    if b.style(3) == 2:
        b.poly([(-0.25, -w), (0.7, -w), (1, 0.1), (0.7, 0.1), (-0.25, 0.1)], b.light)
    else:
        b.poly([(-0.25, -w), (0.6, -w), (1, w * 0.7), (-0.25, w * 0.7)], b.light)
    b.box(-0.34, -w - 0.02, -0.25, w + 0.02, b.dark)


def _sword(b: Brush) -> None:
    w = b.part(0.07, 0.14)
    b.poly([(-0.45, -w), (0.85, -w), (1, 0), (0.85, w), (-0.45, w)], b.light)
    b.box(-0.95, -0.06, -0.5, 0.06, b.second)
    b.bar(-0.5, -b.part(0.28, 0.45), -0.5, b.part(0.28, 0.45), 0.1, b.main)
    b.disc(-0.95, 0, 0.1 + 0.03 * b.style(3), b.main)


def _cigarette(b: Brush) -> None:
    w = b.part(0.11, 0.17)
    b.box(-0.3, 0.3 - w, 0.85, 0.3 + w, (250, 250, 245))
    b.box(-0.9, 0.3 - w, -0.3, 0.3 + w, (225, 150, 60))
    b.box(0.85, 0.3 - w, 0.98, 0.3 + w, (230, 50, 20))
    for i in range(2):
        b.arc(0.85 - 0.22 * i, -0.15, b.part(0.14, 0.24), 90, 270, 0.07, b.dark)
        b.arc(0.85 - 0.22 * i, -0.5, 0.17, -90, 90, 0.07, b.dark)


def _beer_bottle(b: Brush) -> None:
    w = b.part(0.26, 0.38)
    b.box(-w, -0.1, w, 0.95, b.main)
    b.poly([(-w, -0.1), (-0.13, -0.45), (0.13, -0.45), (w, -0.1)], b.main)
    b.box(-0.13, -0.9, 0.13, -0.4, b.main)
    b.box(-0.16, -1, 0.16, -0.86, b.second)
    b.box(-w, b.part(0.1, 0.35), w, 0.7, b.light)
    b.star(0, 0.47, 0.16, 0.07, 5 + b.style(3), b.second)


def _pill(b: Brush) -> None:
    w, style = b.part(0.45, 0.62), b.style(3)
    b.bar(-0.55, 0, 0.55, 0, w, b.light)
    b.bar(0.1, 0, 0.55, 0, w, b.main)
    b.box(0, -w / 2, 0.15, w / 2, b.main)
    if style != 0:
        b.disc(-0.5, -0.72, 0.2, b.light)
        b.box(-0.68, -0.75, -0.32, -0.7, b.dark)


def _syringe(b: Brush) -> None:
    w = b.part(0.15, 0.24)
    b.box(-0.5, -w, 0.4, w, (235, 245, 250))
    b.box(-0.5 + b.part(0.1, 0.5), -w * 0.8, 0.4, w * 0.8, b.main)
    b.box(0.4, -0.08, 0.55, 0.08, b.dark)
    b.bar(0.5, 0, 1, 0, 0.05, b.dark)
    b.box(-0.9, -0.05, -0.5, 0.05, b.dark)
    b.box(-1, -0.28, -0.9, 0.28, b.dark)
    b.box(-0.54, -w - 0.12, -0.46, w + 0.12, b.dark)
    for i in range(2 + b.style(3)):
        b.box(-0.25 + 0.2 * i, -w, -0.21 + 0.2 * i, 0, b.dark)


def _flame(b: Brush) -> None:
    top, w = b.part(0.8, 1.0), b.part(0.5, 0.68)
    b.disc(0, 0.35, w, (235, 70, 20), 0.6)
    b.poly(
        [(-w, 0.35), (-0.35, -0.25), (-0.25, -0.05), (0.05, -top), (0.3, -0.1), (0.45, -0.35), (w, 0.35)],
        (235, 70, 20),
    )
    b.disc(0, 0.5, w * 0.6, (255, 190, 40), 0.42)
    b.poly([(-w * 0.6, 0.5), (0.05, -0.25), (w * 0.6, 0.5)], (255, 190, 40))
    if b.style(3) != 0:
        b.disc(0, 0.62, 0.18, (255, 245, 170), 0.28)


def _burning_house(b: Brush) -> None:
    w = b.part(0.55, 0.72)
    b.box(-w, 0.05, w, 0.95, b.main)
    for x in (-0.4, 0.05, 0.42):
        h = b.part(0.55, 0.95)
        b.poly(
            [(x - 0.28, 0.0), (x - 0.12, -h * 0.6), (x, -h), (x + 0.12, -h * 0.55), (x + 0.28, 0)],
            (240, 80, 20),
        )
        b.poly([(x - 0.14, 0.05), (x, -h * 0.5), (x + 0.14, 0.05)], (255, 200, 50))
    b.poly([(-w - 0.1, 0.15), (-0.1, -0.25), (0.1, -0.25), (w + 0.1, 0.15)], b.dark)
    b.box(-0.15, 0.5, 0.15, 0.95, b.dark)
    for x in (-0.42, 0.42) if b.style(3) else (-0.42,):
        b.poly([(x - 0.13, 0.6), (x, 0.2), (x + 0.13, 0.6)], (255, 170, 30))


def _matches(b: Brush) -> None:
    for i, x in enumerate((-0.35, 0.0, 0.35)[: 2 + b.style(3) % 2]):
        b.bar(x, 0.9, x + b.part(-0.1, 0.1), -0.2, 0.12, (225, 185, 120))
        b.disc(x, -0.3, 0.16, (200, 40, 30), 0.2)
        if i == 0:
            b.disc(x, -0.55, 0.22, (250, 140, 30), b.part(0.3, 0.42))
            b.disc(x, -0.45, 0.12, (255, 230, 90), 0.18)


def _skull(b: Brush) -> None:
    w = b.part(0.5, 0.64)
    for s in (-1, 1):
        b.bar(-0.85 * s, 0.35, 0.85 * s, 0.9, 0.14, b.light)
        for y in (0.35, 0.9):
            b.disc(-0.88 * s if y < 0.5 else 0.88 * s, y, 0.13, b.light)
    b.disc(0, -0.3, w, b.light, 0.6)
    b.box(-w * 0.6, 0, w * 0.6, 0.42, b.light)
    r = b.part(0.13, 0.2)
    b.disc(-0.24, -0.25, r, b.dark)
    b.disc(0.24, -0.25, r, b.dark)
    b.poly([(-0.08, 0.1), (0, -0.08), (0.08, 0.1)], b.dark)
    for i in range(2 + b.style(3)):
        b.box(-0.22 + 0.17 * i, 0.22, -0.18 + 0.17 * i, 0.42, b.dark)


def _poison_bottle(b: Brush) -> None:
    w = b.part(0.48, 0.62)
    b.disc(0, 0.35, w, b.main, 0.6)
    b.box(-0.16, -0.6, 0.16, 0, b.main)
    b.box(-0.22, -0.9, 0.22, -0.6, b.second)
    b.disc(0, 0.28, 0.28, b.light, b.part(0.22, 0.3))
    b.box(-0.15, 0.45, 0.15, 0.62, b.light)
    b.disc(-0.11, 0.28, 0.08, b.dark)
    b.disc(0.11, 0.28, 0.08, b.dark)
    if b.style(3) != 1:
        b.bar(-0.3, 0.7, 0.3, 0.84, 0.07, b.light)
        b.bar(0.3, 0.7, -0.3, 0.84, 0.07, b.light)


def _dynamite(b: Brush) -> None:
    sticks, w = 3 + b.style(3) % 2, b.part(0.13, 0.17)
    for i in range(sticks):
        x = (i - (sticks - 1) / 2) * 2.1 * w
        b.box(x - w, -0.45, x + w, 0.9, (205, 40, 35))
        b.disc(x, -0.45, w, (235, 190, 150), 0.08)
        b.disc(x, 0.9, w, (160, 30, 25), 0.08)
    b.box(-2.1 * sticks * w / 2, 0.1, 2.1 * sticks * w / 2, 0.3, b.dark)
    b.arc(0.25, -0.5, 0.25, 180, 300, 0.06, b.dark)
    b.star(0.42, -0.76, b.part(0.18, 0.26), 0.09, 6, (255, 180, 40))


def _cannon(b: Brush) -> None:
    w = b.part(0.2, 0.28)
    b.poly([(-0.7, -0.02 - w), (0.75, -0.62), (0.95, -0.25), (-0.5, 0.3 + w * 0.4)], b.dark)
    b.bar(0.74, -0.66, 0.98, -0.2, 0.1, b.dark)
    b.disc(-0.68, 0.12, 0.24, b.dark)
    b.bar(-0.2, 0.3, -0.95, 0.75, 0.14, b.second)
    b.disc(0.0, 0.42, 0.46, b.main)
    b.disc(0.0, 0.42, 0.34, b.light)
    spokes = 3 + b.style(3)
    for k in range(spokes):
        a = math.pi * k / spokes
        x, y = 0.4 * math.cos(a), 0.4 * math.sin(a)
        b.bar(-x, 0.42 - y, x, 0.42 + y, 0.07, b.main)


def _cigar(b: Brush) -> None:
    w = b.part(0.16, 0.22)
    b.bar(-0.7, 0.2, 0.6, 0.2, 2 * w, (120, 72, 38))
    b.box(0.6, 0.2 - w, 0.8, 0.2 + w, (150, 145, 140))
    b.box(0.76, 0.2 - w, 0.86, 0.2 + w, (235, 80, 25))
    x = -0.4 if b.style(3) else -0.1
    b.box(x, 0.2 - w, x + 0.22, 0.2 + w, (205, 45, 45))
    b.box(x + 0.08, 0.2 - w, x + 0.14, 0.2 + w, (240, 205, 80))
    b.arc(0.8, -0.25, b.part(0.13, 0.2), 90, 270, 0.08, b.dark)
    b.arc(0.8, -0.58, 0.16, -90, 90, 0.08, b.dark)


def _whisky_glass(b: Brush) -> None:
    w, level = b.part(0.55, 0.68), b.part(-0.1, 0.25)
    b.poly([(-w, -0.7), (w, -0.7), (w * 0.85, 0.85), (-w * 0.85, 0.85)], (220, 232, 238))
    b.poly([(-w * 0.9, level), (w * 0.9, level), (w * 0.8, 0.7), (-w * 0.8, 0.7)], (195, 120, 30))
    for i in range(1 + b.style(3)):
        x, y = -0.28 + 0.3 * i, level - 0.05 + 0.12 * (i % 2)
        b.poly([(x - 0.16, y), (x, y - 0.18), (x + 0.16, y), (x, y + 0.18)], (238, 246, 250))


def _powder_bag(b: Brush) -> None:
    w, style = b.part(0.5, 0.64), b.style(3)
    b.poly([(-w, -0.55), (w, -0.55), (w * 0.9, 0.6), (-w * 0.9, 0.6)], (205, 222, 232))
    b.box(-w, -0.72, w, -0.55, b.main if style else b.dark)
    b.poly(
        [(-w * 0.85, 0.5), (-w * 0.7, -0.1), (0, b.part(-0.3, -0.15)), (w * 0.75, 0.0), (w * 0.85, 0.5)],
        (252, 252, 252),
    )
    for i in range(3 + style):
        b.bar(-0.75 + 0.3 * i, 0.92, -0.6 + 0.3 * i, 0.75, 0.09, (252, 252, 252))


def _campfire(b: Brush) -> None:
    top, w = b.part(0.75, 0.98), b.part(0.36, 0.48)
    for colour, scale in (((235, 75, 20), 1.0), ((255, 195, 45), 0.6)):
        b.disc(0, 0.3, w * scale, colour, 0.35 * scale)
        b.poly(
            [
                (-w * scale, 0.3),
                (-0.22 * scale, -0.2),
                (0.03, 0.3 - (top + 0.3) * scale),
                (0.2 * scale, -0.1),
                (w * scale, 0.3),
            ],
            colour,
        )
    for s in (-1, 1):
        b.bar(-0.75 * s, 0.85, 0.7 * s, 0.5, 0.18, (115, 72, 40))
    if b.style(3) != 0:
        for x in (-0.8, -0.28, 0.28, 0.8):
            b.disc(x, 0.92, 0.14, (120, 122, 126), 0.09)


def _burning_car(b: Brush) -> None:
    for x in (-0.45, 0.0, 0.4)[: 2 + b.style(3) % 2]:
        h = b.part(0.6, 0.9)
        b.poly(
            [
                (x - 0.3, 0.1),
                (x - 0.2, -h * 0.5),
                (x - 0.08, -h * 0.3),
                (x, -h),
                (x + 0.14, -h * 0.4),
                (x + 0.3, 0.1),
            ],
            (238, 80, 20),
        )
        b.poly([(x - 0.15, 0.1), (x, -h * 0.55), (x + 0.15, 0.1)], (255, 200, 50))
    b.box(-0.95, 0.2, 0.95, 0.58, b.main)
    b.poly([(-0.6, 0.2), (-0.42, -0.14), (0.3, -0.14), (0.6, 0.2)], b.main)
    b.poly([(-0.42, 0.17), (-0.32, -0.06), (0.22, -0.06), (0.4, 0.17)], (255, 170, 40))
    for x in (-0.5, 0.5):
        b.disc(x, 0.6, b.part(0.18, 0.24), b.dark)


DRAWINGS = {
    "pistol": _pistol, "rifle": _rifle, "bomb": _bomb, "grenade": _grenade, "knife": _knife, "sword": _sword,
    "cigarette": _cigarette, "beer bottle": _beer_bottle, "pill": _pill, "syringe": _syringe, "flame": _flame,
    "burning house": _burning_house, "match": _matches, "skull and crossbones": _skull,
    "poison bottle": _poison_bottle, "dynamite bundle": _dynamite, "cannon": _cannon, "cigar": _cigar,
    "whisky glass": _whisky_glass, "powder bag": _powder_bag, "campfire": _campfire, "burning car": _burning_car,
}  # fmt: skip
"""Name -> function that draws the thing with a brush."""
