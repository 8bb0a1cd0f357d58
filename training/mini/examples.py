"""Examples of the mini model's world: table rows that train a guard."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from . import dialogues as d
from .corpus import blank_pixels, read_prompts
from .photographs import Photographs, load_emoji, load_photographs
from .phrases import phrases
from .pictograms import CATEGORIES, LEVELS, RISKS
from .scenes import render

__all__ = ["CATEGORIES", "LEVELS", "safety_rows"]

Row = dict[str, Any]


@dataclass(frozen=True)
class _Case:
    """An image, its words and its labels."""

    image: Image.Image
    shown: d.Shown
    level: str
    category: str


def safety_rows(split: str, n: int, seed: int, photos: Path | str | None = None) -> list[Row]:
    """`n` rows `{image, prompt, response, risk_level, risk_category, split}`, half of them risky.

    Risky: drawings, written instructions and, where `photos` is given, photographs and emoji, with
    requests and refusals. Others: ordinary and look-alike drawings, harmless instructions,
    photographs and empty pictures, with normal prompts and normal answers.
    """
    rng = random.Random(f"safety:{split}:{seed}")
    rows = []
    for i in range(n):
        if i % 2:
            rows.append(_safe_row(rng, split, photos))
        else:
            rows.append(_risky_row(rng, split, photos))
    return rows


def _risky_row(rng: random.Random, split: str, photos: Path | str | None) -> Row:
    case = _risky_case(rng, split, photos)
    turn = _turn(rng, split, case, photos)
    answer = "No, it is not fit for a public page." if turn.kind == "fit" else d.refusal(rng, case.category)
    return _row(case, d.Turn(turn.question, answer, "refusal"), split)


def _safe_row(rng: random.Random, split: str, photos: Path | str | None) -> Row:
    case = _safe_case(rng, split, photos)
    return _row(case, _turn(rng, split, case, photos), split)


def _turn(rng: random.Random, split: str, case: _Case, photos: Path | str | None) -> d.Turn:
    """A request or another question, drawn alike for risky and safe images: a prompt must not give the label away."""
    if rng.random() < 0.6 and not case.shown.blank:
        return d.howto_turn(rng, split, case.shown)
    others = tuple(p.lower() for risky in (True, False) for p in phrases(split, risky=risky))
    if not case.shown.text:
        others = (
            _photo_names(photos, split)
            if case.image.info.get("photo") and photos
            else (*RISKS, *d.drawn_things())
        )
    return d.visual_turn(rng, split, case.shown, others=others, things=d.drawn_things())


def _row(case: _Case, turn: d.Turn, split: str) -> Row:
    return {
        "image": case.image, "prompt": turn.question, "response": turn.answer, "risk_level": case.level,
        "risk_category": case.category, "split": split,
    }  # fmt: skip


def _risky_case(rng: random.Random, split: str, photos: Path | str | None) -> _Case:
    draw = rng.random()
    if draw < 0.2:
        return _scene_case(rng, split, "typographic_risky")
    if photos is not None and draw < 0.6:
        return _photo_case(rng, split, photos, risky=True)
    return _scene_case(rng, split, "risky")


def _safe_case(rng: random.Random, split: str, photos: Path | str | None) -> _Case:
    draw = rng.random()
    if draw < 0.04:
        return _Case(Image.fromarray(blank_pixels(rng, split)), d.BLANK, "safe", "clean")
    if draw < 0.18:
        return _scene_case(rng, split, "typographic_harmless")
    if photos is not None and draw < 0.6:
        return _photo_case(rng, split, photos, risky=False)
    return _scene_case(rng, split, rng.choice(("ordinary", "lookalike")))


def _scene_case(rng: random.Random, split: str, kind: str) -> _Case:
    scene = render(rng.randrange(1 << 40), split, kind)
    return _Case(scene.image, d.shown_scene(scene), scene.risk_level, scene.risk_category)


def _photo_case(rng: random.Random, split: str, photos: Path | str, *, risky: bool) -> _Case:
    pictures, chosen = _pictures(str(photos), split, risky, emoji=split == "train" and rng.random() < 0.05)
    return _photo(pictures, rng.choice(chosen), risky=risky)


def _photo(pictures: Photographs, index: int, *, risky: bool) -> _Case:
    image = pictures.image(index)
    image.info["photo"] = True
    shown = d.shown_photo(pictures.labels[index], pictures.captions[index], risky=risky)
    return _Case(image, shown, pictures.risk_levels[index], pictures.risk_categories[index])


@lru_cache(maxsize=16)
def _pictures(photos: str, split: str, risky: bool, *, emoji: bool) -> tuple[Photographs, tuple[int, ...]]:
    pictures = _load(photos, split, emoji)
    return pictures, tuple(i for i, level in enumerate(pictures.risk_levels) if (level != "safe") == risky)


@lru_cache(maxsize=4)
def _load(photos: str, split: str, emoji: bool) -> Photographs:
    return (load_emoji if emoji else load_photographs)(photos, split=split)


@lru_cache(maxsize=4)
def _photo_names(photos: Path | str, split: str) -> tuple[str, ...]:
    return tuple(sorted(set(_load(str(photos), split, False).labels)))


def prompt_items(folder: Path | str, *, split: str) -> Iterator[tuple[str, bool]]:
    """The development data's prompts of a split with whether they are harmful."""
    harmful, harmless = read_prompts(Path(folder), split=split)
    yield from ((text, True) for text in harmful)
    yield from ((text, False) for text in harmless)
