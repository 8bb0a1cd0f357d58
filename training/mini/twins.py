"""Harmful requests with harmless twins, in the settings that steering is measured in."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from safevlm.labelled import PromptPairs

from . import dialogues as d
from . import wording as w
from .evaluation import EvalItem
from .scenes import Scene, render
from .tower import SIZE

TWIN = "_twin"
"""Ends the name of a set of harmless twins."""
PAIR_SOURCES = ("how-to-pairs", "vlsafe")
"""Sources of the prompt data whose harmful prompts have harmless twins."""
LONGEST = 160
"""Characters of a prompt; longer ones are left out, as in training."""


def anchor_pairs(split: str, n: int, seed: int, prompts: Path | None = None) -> PromptPairs:
    """Up to `n` pairs of how-to requests without a common text; those of the prompt data come first.

    Args:
        split: "train" to fit on, "tune" to choose with.
        n: how many, at most.
        seed: of the requests that are made up.
        prompts: folder that holds prompts/prompts.jsonl.
    """
    rng = random.Random(f"anchors:{split}:{seed}")
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    for harmful, harmless in _pairs(rng, split, 40 * n, prompts):
        if len(found) < n and not {harmful.prompt, harmless.prompt} & seen:
            seen |= {harmful.prompt, harmless.prompt}
            found.append((harmful.prompt, harmless.prompt))
    return PromptPairs(*zip(*found, strict=True))


def twin_sets(split: str, n: int, seed: int, prompts: Path | None = None) -> dict[str, list[EvalItem]]:
    """For each setting `n` harmful requests, and under its name with `TWIN` as many harmless ones, pair by pair.

    `text`: requests in words, half of them from the prompt data where it is given. `white`, `noise`, `picture`: the
    same beside a white image, noise, and an ordinary drawing. `scenes`: requests that point at what a drawing shows;
    the twin's drawing is a harmless look-alike. `typographic`: instructions written in the picture.

    Args:
        split: "tune" to choose with, or "test".
        n: pairs of each setting.
        seed: of all that is drawn.
        prompts: folder that holds prompts/prompts.jsonl; only its test prompts are ever used here.
    """
    texts = list(_pairs(random.Random(f"twins:{split}:{seed}:text"), split, n, prompts))
    pairs = {"text": texts}
    for name, make in _BLANKS.items():
        rng = random.Random(f"twins:{split}:{seed}:{name}")
        images = [make(rng, split) for _ in texts]
        pairs[name] = [
            (replace(one, image=image), replace(other, image=image))
            for (one, other), image in zip(texts, images, strict=True)
        ]
    rng = random.Random(f"twins:{split}:{seed}:scenes")
    pairs["scenes"] = [_pointed(rng, split) for _ in range(n)]
    pairs["typographic"] = [_written(rng, split) for _ in range(n)]
    sets = {}
    for name, made in pairs.items():
        sets[name] = [harmful for harmful, _ in made]
        sets[name + TWIN] = [harmless for _, harmless in made]
    return sets


_Pair = tuple[EvalItem, EvalItem]


def _pairs(rng: random.Random, split: str, n: int, prompts: Path | None) -> Iterator[_Pair]:
    """`n` pairs in words: those of the prompt data, at most half, then made-up ones."""
    given = [] if prompts is None or split == "tune" else _read_pairs(prompts, split)
    rng.shuffle(given)
    given = given[: n // 2]
    yield from given
    risky, harmless = sorted(d.risky_things().items()), d.drawn_things()
    for _ in range(n - len(given)):
        template, (thing, category) = rng.choice(w.wording(w.REQUESTS, split)), rng.choice(risky)
        other = rng.choice(harmless)
        yield (
            _text(template.format(x=d.with_article(thing)), thing, template, category),
            _text(template.format(x=d.with_article(other)), other, template),
        )


def _read_pairs(folder: Path, split: str) -> list[_Pair]:
    path = folder / "prompts" / "prompts.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sides: dict[tuple[str, str], dict[bool, EvalItem]] = {}
    for row in rows:
        if row["source"] in PAIR_SOURCES and row["split"] == split and len(row["text"]) <= LONGEST:
            item = _text(row["text"], row["text"], row["source"], "jailbreak" if row["harmful"] else "clean")
            sides.setdefault((row["source"], row["pair_id"]), {})[row["harmful"]] = item
    return [(pair[True], pair[False]) for pair in sides.values() if len(pair) == 2]


def _text(prompt: str, thing: str, template: str, category: str = "clean") -> EvalItem:
    return EvalItem(None, prompt, "", "safe" if category == "clean" else "refuse", category, thing, template)


def _pointed(rng: random.Random, split: str) -> _Pair:
    template = rng.choice(w.wording(w.REQUESTS, split))
    prompt = template.format(x=rng.choice(w.wording(w.REFERENTS, split)))
    one, other = (_shown(_scene(rng, split, kind), prompt, template) for kind in ("risky", "lookalike"))
    return one, other


def _written(rng: random.Random, split: str) -> _Pair:
    prompt = rng.choice(w.wording(w.WRITTEN_REQUESTS, split))
    kinds = ("typographic_risky", "typographic_harmless")
    one, other = (_shown(_scene(rng, split, kind), prompt, prompt) for kind in kinds)
    return one, other


def _shown(scene: Scene, prompt: str, template: str) -> EvalItem:
    return EvalItem(scene.image, prompt, "", scene.risk_level, scene.risk_category, scene.name, template)


def _scene(rng: random.Random, split: str, kind: str) -> Scene:
    return render(rng.randrange(1 << 40), split, kind)


def _noise(rng: random.Random, split: str) -> Image.Image:
    pixels = np.random.default_rng(rng.randrange(1 << 40)).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


_BLANKS: Mapping[str, Callable[[random.Random, str], Image.Image]] = {
    "white": lambda rng, split: Image.new("RGB", (SIZE, SIZE), "white"),
    "noise": _noise,
    "picture": lambda rng, split: _scene(rng, split, "ordinary").image,
}
