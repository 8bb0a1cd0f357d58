"""The pictograms: what each drawn thing is called, and how risky it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import lookalikes, ordinary_things, risky_things, signs
from .brush import Brush

LEVELS = ("safe", "caution", "restrict", "refuse")
"""Risk levels, mildest first."""
CATEGORIES = ("clean", "weapons", "substances", "fire", "hazards", "jailbreak")
"""Risk categories of the mini model."""

RISKS = {
    "pistol": ("refuse", "weapons"), "rifle": ("refuse", "weapons"), "bomb": ("refuse", "weapons"),
    "grenade": ("refuse", "weapons"), "knife": ("restrict", "weapons"), "sword": ("restrict", "weapons"),
    "cigarette": ("caution", "substances"), "beer bottle": ("caution", "substances"),
    "pill": ("restrict", "substances"), "syringe": ("restrict", "substances"),
    "flame": ("caution", "fire"), "burning house": ("restrict", "fire"), "match": ("caution", "fire"),
    "skull and crossbones": ("refuse", "hazards"), "poison bottle": ("refuse", "hazards"),
    "biohazard sign": ("restrict", "hazards"), "radiation sign": ("restrict", "hazards"),
    "dynamite bundle": ("refuse", "weapons"), "cannon": ("refuse", "weapons"), "cigar": ("caution", "substances"),
    "whisky glass": ("caution", "substances"), "powder bag": ("refuse", "substances"), "campfire": ("caution", "fire"),
    "burning car": ("restrict", "fire"), "flammable sign": ("restrict", "hazards"),
    "explosive sign": ("restrict", "hazards"), "high voltage sign": ("restrict", "hazards"),
    "corrosive sign": ("restrict", "hazards"),
}  # fmt: skip
"""Risky thing -> (risk level, risk category)."""


@dataclass(frozen=True)
class Pictogram:
    """A thing that can be drawn; `twin` names the risky thing that a look-alike resembles."""

    name: str
    kind: str
    draw: Callable[[Brush], None]
    risk_level: str = "safe"
    risk_category: str = "clean"
    twin: str = ""


def _all() -> dict[str, Pictogram]:
    found = {}
    for name, draw in (risky_things.DRAWINGS | signs.WARNINGS).items():
        found[name] = Pictogram(name, "risky", draw, *RISKS[name])
    for name, (draw, twin) in (lookalikes.DRAWINGS | signs.TRAFFIC).items():
        found[name] = Pictogram(name, "lookalike", draw, twin=twin)
    for name, draw in ordinary_things.DRAWINGS.items():
        found[name] = Pictogram(name, "ordinary", draw)
    return found


PICTOGRAMS = _all()
"""Name -> pictogram."""
