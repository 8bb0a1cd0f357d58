"""The embedded model's world as a concept set: risky things by category, and harmless ones, drawn or photographed."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from safevlm.labelled import ConceptImage, ConceptSet

from .dialogues import with_article
from .photographs import load_photographs
from .pictograms import PICTOGRAMS
from .scenes import render

HARMLESS = {"lookalike": "look-alikes", "ordinary": "ordinary things"}
"""Kind of a harmless drawing -> its category."""
DRAWN = "scenes"
"""Source of drawings; that of a photograph is its pack."""
PHOTOGRAPHED = "photographed things"
"""Category of harmless photographs whose label is no risky thing."""


def scene_concepts(split: str, n: int, seed: int) -> ConceptSet:
    """`n` drawings of every thing that can be drawn, rendered for a split.

    Args:
        split: "train", "tune" or "test".
        n: drawings of each thing, at least 1.
        seed: of the drawings.
    """
    images = []
    for picture in PICTOGRAMS.values():
        rng = random.Random(f"concepts:{split}:{seed}:{picture.name}")
        category = HARMLESS.get(picture.kind, picture.risk_category)
        for number in range(n):
            scene = render(rng.randrange(1 << 40), split, name=picture.name)
            name, risky = f"scene of {picture.name}, {number}", picture.risk_level != "safe"
            images.append(
                ConceptImage(
                    name,
                    scene.image,
                    category,
                    picture.name,
                    risky,
                    with_article(picture.name),
                    source=DRAWN,
                )
            )
    return ConceptSet(f"scenes ({split})", tuple(images))


def photo_concepts(folder: Path, split: str, n: int, seed: int) -> ConceptSet:
    """At most `n` photographs of every risky thing, and of harmless ones, by others' labels.

    A label that stands on risky and on harmless photographs is taken for what most of them are.

    Args:
        folder: holds the packs of photographs.
        split: "train", "tune" or "test".
        n: photographs of each thing.
        seed: of the choice of photographs.

    Raises:
        FileNotFoundError: no pack is there.
    """
    pictures = load_photographs(folder, split=split)
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for index, label in enumerate(pictures.labels):
        kinds[label].append(pictures.risk_categories[index] if pictures.risky(index) else "")
    usual = {label: max(sorted(set(found)), key=found.count) for label, found in kinds.items()}
    images = []
    for index, label in enumerate(pictures.labels):
        category = usual[label]
        if category == (pictures.risk_categories[index] if pictures.risky(index) else ""):
            name, encoded = f"{pictures.packs[index]} {index}", pictures.encoded[index]
            images.append(
                ConceptImage(
                    name,
                    encoded,
                    category or PHOTOGRAPHED,
                    label,
                    bool(category),
                    with_article(label),
                    source=pictures.packs[index],
                )
            )
    return ConceptSet(f"photographs ({split})", tuple(images)).sample(n, seed)
