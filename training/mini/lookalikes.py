"""Pictograms of harmless things that look like a risky one."""

from __future__ import annotations

import math

from .brush import Brush


def _hair_dryer(b: Brush) -> None:
    b.disc(-0.35, -0.35, 0.42, b.main)
    b.poly([(-0.35, -0.75), (b.part(0.6, 0.9), -0.55), (0.8, -0.1), (-0.35, 0.05)], b.main)
    b.poly([(-0.5, 0), (-0.15, 0), (-0.2, 0.8), (-0.5, 0.8)], b.second)
    b.disc(-0.35, -0.35, 0.2 + 0.03 * b.style(3), b.light)


def _drill(b: Brush) -> None:
    b.box(-0.8, -0.5, 0.3, -0.05, b.main)
    b.poly([(-0.5, -0.05), (-0.1, -0.05), (-0.2, 0.55), (-0.6, 0.55)], b.main)
    b.box(-0.75, 0.55, b.part(-0.05, 0.2), 0.85, b.dark)
    b.poly([(0.3, -0.42), (0.5, -0.35), (0.5, -0.2), (0.3, -0.12)], b.dark)
    b.bar(0.5, -0.28, b.part(0.85, 1.0), -0.28, 0.07 + 0.01 * b.style(3), b.light)


def _pineapple(b: Brush) -> None:
    h = b.part(0.5, 0.62)
    for x in (-0.35, -0.15, 0.15, 0.35):
        b.poly([(x * 0.3 - 0.1, -0.2), (x * 1.5, -0.9 + abs(x) * 0.6), (x * 0.3 + 0.1, -0.2)], (50, 150, 60))
    b.poly([(-0.12, -0.2), (0, -1), (0.12, -0.2)], (40, 130, 50))
    b.disc(0, 0.35, 0.45, (235, 180, 40), h)
    for i in range(-2, 3):
        b.bar(
            -0.3, 0.35 + 0.2 * i - 0.12, 0.3, 0.35 + 0.2 * i * b.part(0.6, 1.0) + 0.12, 0.04, (170, 110, 20)
        )


def _bowling_ball(b: Brush) -> None:
    b.disc(0, 0, b.part(0.7, 0.88), b.dark)
    s = 1 if b.style(3) != 1 else -1
    for x, y in ((-0.18, -0.4), (0.12, -0.42), (0, -0.15)):
        b.disc(x * s, y, b.part(0.08, 0.12), b.light)


def _ornament(b: Brush) -> None:
    r = b.part(0.58, 0.74)
    b.arc(0, -0.78, 0.14, 0, 360, 0.07, b.dark)
    b.box(-0.17, -0.68, 0.17, -0.4, (230, 190, 60))
    b.disc(0, 0.2, r, b.main)
    b.box(-r * 0.95, 0.1, r * 0.95, 0.32, b.second)
    if b.style(3) != 0:
        b.disc(-0.25, -0.15, 0.13, b.light)


def _spoon(b: Brush) -> None:
    b.bar(-0.95, 0, 0.4, 0, b.part(0.1, 0.17), b.light)
    b.disc(0.65, 0, b.part(0.3, 0.4), b.light, 0.24)
    if b.style(3) != 0:
        b.disc(0.65, 0, 0.2, b.dark, 0.12)


def _paint_brush(b: Brush) -> None:
    w = b.part(0.08, 0.14)
    b.poly([(-1, -0.04), (0.2, -w), (0.2, w), (-1, 0.04)], b.second)
    b.box(0.2, -0.17, 0.45, 0.17, b.light)
    b.poly([(0.45, -0.17), (0.75, -0.2), (1, 0.02 * b.style(3)), (0.75, 0.2), (0.45, 0.17)], b.main)


def _pencil(b: Brush) -> None:
    w = b.part(0.12, 0.2)
    b.box(-0.75, -w, 0.6, w, b.main)
    b.box(-1, -w, -0.85, w, (240, 130, 140))
    b.box(-0.85, -w, -0.75, w, b.light)
    b.poly([(0.6, -w), (1, 0), (0.6, w)], (240, 210, 160))
    b.poly([(0.87, -w * 0.33), (1, 0), (0.87, w * 0.33)], b.dark)
    if b.style(3) != 0:
        b.box(-0.75, -w / 3, 0.6, w / 3, b.second)


def _chalk(b: Brush) -> None:
    w = b.part(0.14, 0.2)
    b.bar(-0.2, -0.2, 0.8, -0.2, w * 2, (248, 248, 248))
    b.disc(0.85, -0.2, w * 0.7, (215, 215, 215), w)
    for i in range(2 + b.style(3)):
        b.bar(-0.9 + 0.5 * i, 0.6, -0.6 + 0.5 * i, 0.45, 0.06, (248, 248, 248))


def _vase(b: Brush) -> None:
    w = b.part(0.45, 0.62)
    b.disc(0, 0.4, w, b.main, 0.52)
    b.poly([(-0.15, -0.1), (0.15, -0.1), (0.3, -0.55), (-0.3, -0.55)], b.main)
    b.box(-w * 0.95, 0.3, w * 0.95, 0.45, b.second)
    for x in (-0.25, 0.0, 0.25)[: 1 + b.style(3)]:
        b.bar(x * 0.4, -0.5, x, -0.85, 0.05, (60, 150, 60))
        b.disc(x, -0.88, 0.14, b.second)


def _button(b: Brush) -> None:
    b.disc(0, 0, b.part(0.7, 0.85), b.main)
    b.arc(0, 0, b.part(0.48, 0.58), 0, 360, 0.07, b.dark)
    spots = ((-1, -1), (1, 1), (1, -1), (-1, 1)) if b.style(3) else ((-1, 0), (1, 0))
    for x, y in spots:
        b.disc(0.18 * x, 0.18 * y, 0.1, b.dark)


def _candy(b: Brush) -> None:
    r = b.part(0.36, 0.5)
    for s in (-1, 1):
        b.poly([(s * 0.3, 0), (s * 0.95, -b.part(0.3, 0.45)), (s * 0.8, 0), (s * 0.95, 0.35)], b.second)
    b.disc(0, 0, r, b.main)
    for i in range(1 + b.style(3)):
        b.bar(-0.15 + 0.15 * i, -r * 0.7, 0.05 + 0.15 * i, r * 0.7, 0.08, b.light)


def _thermometer(b: Brush) -> None:
    w = b.part(0.12, 0.18)
    b.bar(-0.9, 0, 0.55, 0, w * 2, (240, 245, 250))
    b.disc(0.65, 0, 0.27, (240, 245, 250))
    b.disc(0.65, 0, 0.19, (220, 40, 40))
    b.bar(b.part(-0.5, 0.2), 0, 0.6, 0, 0.1, (220, 40, 40))
    for i in range(3 + b.style(3)):
        b.box(-0.8 + 0.25 * i, -w, -0.77 + 0.25 * i, -w * 0.3, b.dark)


def _leaf(b: Brush) -> None:
    w = b.part(0.38, 0.58)
    green = (70, 160, 70) if b.style(3) != 1 else (200, 130, 40)
    b.poly(
        [
            (0, -0.95),
            (w * 0.8, -0.4),
            (w, 0.1),
            (w * 0.5, 0.55),
            (0, 0.7),
            (-w * 0.5, 0.55),
            (-w, 0.1),
            (-w * 0.8, -0.4),
        ],
        green,
    )
    b.bar(0, -0.7, 0, 0.98, 0.06, b.dark)
    for y in (-0.2, 0.15):
        b.bar(0, y + 0.2, w * 0.6, y, 0.04, b.dark)
        b.bar(0, y + 0.2, -w * 0.6, y, 0.04, b.dark)


def _tulip(b: Brush) -> None:
    top = b.part(0.75, 0.98)
    b.bar(0, 0, 0, 0.95, 0.09, (60, 150, 60))
    b.disc(0.25, 0.6, 0.1, (60, 150, 60), 0.32, tilt=0.6)
    b.disc(0, -0.25, 0.42, b.main, 0.38)
    b.poly(
        [(-0.42, -0.25), (-0.42, -top), (-0.18, -0.5), (0, -top), (0.18, -0.5), (0.42, -top), (0.42, -0.25)],
        b.main,
    )
    if b.style(3) != 0:
        b.disc(0, -0.2, 0.16, b.second, 0.26)


def _house(b: Brush) -> None:
    w = b.part(0.55, 0.72)
    b.box(-w, -0.05, w, 0.9, b.main)
    b.poly([(-w - 0.15, -0.05), (0, -b.part(0.7, 0.95)), (w + 0.15, -0.05)], b.second)
    b.box(-0.15, 0.4, 0.15, 0.9, b.dark)
    for x in (-0.4, 0.4) if b.style(3) else (0.4,):
        b.box(x - 0.13, 0.15, x + 0.13, 0.4, b.light)


def _smiley(b: Brush) -> None:
    b.disc(0, 0, b.part(0.75, 0.9), (250, 205, 50))
    r = b.part(0.09, 0.14)
    b.disc(-0.3, -0.25, r, b.dark)
    b.disc(0.3, -0.25, r, b.dark, r * (1.0 if b.style(3) else 1.5))
    b.arc(0, 0.05, b.part(0.4, 0.5), 20, 160, 0.1, b.dark)


def _clover(b: Brush) -> None:
    r, leaves = b.part(0.3, 0.37), 3 + b.style(2)
    b.bar(0, 0, 0.15, 0.95, 0.09, (50, 120, 50))
    for k in range(leaves):
        a = math.radians(-90 + 360 / leaves * k)
        b.disc(0.42 * math.cos(a), 0.42 * math.sin(a) - 0.1, r, (60, 165, 80))
    b.disc(0, -0.1, 0.12, (40, 120, 60))


def _fan(b: Brush) -> None:
    b.arc(0, -0.15, 0.75, 0, 360, b.part(0.05, 0.1), b.dark)
    for k in range(3 + b.style(3) % 2):
        a = math.radians(360 / (3 + 0) * k)
        b.disc(0.35 * math.cos(a), 0.35 * math.sin(a) - 0.15, b.part(0.28, 0.34), b.main, 0.18, tilt=a)
    b.disc(0, -0.15, 0.13, b.dark)
    b.box(-0.4, 0.75, 0.4, 0.95, b.dark)


def _flower(b: Brush) -> None:
    petals = 5 + b.style(3)
    r = b.part(0.24, 0.32)
    for k in range(petals):
        a = 2 * math.pi * k / petals
        b.disc(0.52 * math.cos(a), 0.52 * math.sin(a), r, b.main)
    b.disc(0, 0, b.part(0.24, 0.34), (250, 200, 60))


def _milk_bottle(b: Brush) -> None:
    w = b.part(0.3, 0.42)
    b.box(-w, -0.2, w, 0.95, (245, 247, 250))
    b.poly([(-w, -0.2), (-0.22, -0.6), (0.22, -0.6), (w, -0.2)], (245, 247, 250))
    b.box(-0.22, -0.85, 0.22, -0.55, (245, 247, 250))
    b.box(-0.26, -1, 0.26, -0.82, b.main)
    b.box(-w, b.part(0.15, 0.35), w, 0.6, b.second)
    if b.style(3) != 0:
        b.disc(0, 0.42, 0.12, b.light)


def _candle(b: Brush) -> None:
    w, count = b.part(0.14, 0.2), 1 + b.style(3)
    for i in range(count):
        x, top = (i - (count - 1) / 2) * 2.6 * w, -0.25 + 0.2 * (i % 2)
        b.box(x - w, top, x + w, 0.9, b.main)
        b.bar(x, top, x, top - 0.12, 0.05, b.dark)
        b.disc(x, top - 0.28, 0.1, (255, 200, 60), 0.18)
    b.box(-0.75, 0.84, 0.75, 0.96, b.second)


def _telescope(b: Brush) -> None:
    for s in (-0.5, 0.0, 0.5):
        b.bar(0, 0.1, s, 0.95, 0.08, b.dark)
    w = b.part(0.2, 0.28)
    b.poly([(-0.8, 0.22), (0.75, -0.35 - w), (0.95, -0.35 + w), (-0.7, 0.42)], b.main)
    b.bar(0.72, -0.4 - w, 0.98, -0.3 + w, 0.1, b.second)
    b.disc(0, 0.1, 0.1 + 0.02 * b.style(3), b.second)


def _pen(b: Brush) -> None:
    w = b.part(0.13, 0.19)
    b.bar(-0.75, 0, 0.3, 0, 2 * w, b.main)
    b.box(0.2, -w, 0.35, w, (230, 190, 70))
    b.poly([(0.35, -w * 0.9), (0.95, 0), (0.35, w * 0.9)], (215, 220, 225))
    b.bar(0.5, 0, 0.9, 0, 0.03, b.dark)
    if b.style(3) != 0:
        b.bar(-0.85, -w - 0.06, -0.1, -w - 0.06, 0.08, (230, 190, 70))


def _juice_glass(b: Brush) -> None:
    w, level = b.part(0.4, 0.52), b.part(-0.35, 0.0)
    b.bar(0.1, 0.3, b.part(0.4, 0.6), -0.98, 0.09, b.second)
    b.poly([(-w, -0.6), (w, -0.6), (w * 0.7, 0.95), (-w * 0.7, 0.95)], (222, 234, 240))
    b.poly([(-w * 0.9, level), (w * 0.9, level), (w * 0.65, 0.85), (-w * 0.65, 0.85)], (250, 165, 30))
    if b.style(3) != 0:
        b.disc(-w, -0.6, 0.26, (250, 190, 50))
        b.disc(-w, -0.6, 0.18, (255, 235, 150))


def _flour_bag(b: Brush) -> None:
    w = b.part(0.5, 0.64)
    b.poly([(-w, -0.6), (w, -0.6), (w * 1.05, 0.9), (-w * 1.05, 0.9)], (228, 205, 165))
    b.poly([(-w, -0.6), (-w * 0.8, -0.9), (w * 0.8, -0.9), (w, -0.6)], (205, 178, 135))
    b.disc(0, 0.25, 0.36, b.light)
    b.bar(0, 0.5, 0, -0.02, 0.05, (200, 150, 40))
    for i in range(2 + b.style(3) % 2):
        for s in (-1, 1):
            b.disc(0.1 * s, 0.05 + 0.14 * i, 0.09, (225, 170, 50), 0.05, tilt=-0.6 * s)


def _lantern(b: Brush) -> None:
    w = b.part(0.4, 0.52)
    b.arc(0, -0.6, 0.3, 180, 360, 0.07, b.dark)
    b.poly([(-w * 0.7, -0.45), (-0.2, -0.7), (0.2, -0.7), (w * 0.7, -0.45)], b.main)
    b.box(-w, -0.45, w, 0.7, (255, 245, 205))
    b.disc(0, 0.2, 0.15, (255, 190, 50), b.part(0.2, 0.3))
    gaps = 1 + b.style(3)
    for i in range(gaps + 1):
        x = -w + 2 * w * i / gaps
        b.bar(x, -0.45, x, 0.7, 0.06, b.main)
    b.box(-w - 0.1, 0.7, w + 0.1, 0.92, b.main)


def _taxi(b: Brush) -> None:
    h = b.part(0.36, 0.5)
    b.box(-0.95, 0, 0.95, 0.4, (245, 200, 40))
    b.poly([(-0.6, 0), (-0.4, -h), (0.3, -h), (0.6, 0)], (245, 200, 40))
    b.poly([(-0.42, -0.03), (-0.32, -h + 0.1), (0.22, -h + 0.1), (0.4, -0.03)], b.light)
    b.box(-0.22, -h - 0.2, 0.14, -h, b.dark if b.style(3) else b.light)
    for i in range(-4, 5, 2):
        b.box(0.2 * i - 0.1, 0.12, 0.2 * i + 0.1, 0.22, b.dark)
    for x in (-0.5, 0.5):
        b.disc(x, 0.42, b.part(0.18, 0.24), b.dark)
        b.disc(x, 0.42, 0.08, b.light)


DRAWINGS = {
    "hair dryer": (_hair_dryer, "pistol"), "drill": (_drill, "pistol"), "pineapple": (_pineapple, "grenade"),
    "bowling ball": (_bowling_ball, "bomb"), "ornament": (_ornament, "bomb"), "spoon": (_spoon, "knife"),
    "paint brush": (_paint_brush, "sword"), "pencil": (_pencil, "rifle"), "chalk": (_chalk, "cigarette"),
    "vase": (_vase, "poison bottle"), "button": (_button, "pill"), "candy": (_candy, "pill"),
    "thermometer": (_thermometer, "syringe"), "leaf": (_leaf, "flame"), "tulip": (_tulip, "flame"),
    "house": (_house, "burning house"), "smiley": (_smiley, "skull and crossbones"),
    "clover": (_clover, "biohazard sign"), "fan": (_fan, "radiation sign"), "flower": (_flower, "radiation sign"),
    "milk bottle": (_milk_bottle, "beer bottle"), "candle": (_candle, "dynamite bundle"),
    "telescope": (_telescope, "cannon"), "pen": (_pen, "cigar"), "juice glass": (_juice_glass, "whisky glass"),
    "flour bag": (_flour_bag, "powder bag"), "lantern": (_lantern, "campfire"), "taxi": (_taxi, "burning car"),
}  # fmt: skip
"""Name -> (function that draws the thing with a brush, the risky thing that it resembles)."""
