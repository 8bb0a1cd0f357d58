"""The mini model's training corpus: images with what they show, prompts, and rows drawn from them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import dialogues as d
from .backgrounds import choose_background
from .packing import Packer
from .photographs import Photographs, load_emoji, load_photographs
from .phrases import notices, phrases
from .pictograms import RISKS
from .scene_bank import SceneBank


@dataclass(frozen=True)
class Corpus:
    """What dialogues are drawn from; photographs and emoji are None where no data folder is given."""

    bank: SceneBank
    pools: d.TextPools
    photographs: Photographs | None = None
    emoji: Photographs | None = None

    def draw_image(self, rng: random.Random) -> tuple[NDArray[np.uint8], d.Shown, tuple[str, ...]]:
        """Pixels uint8 (64, 64, 3), what they show, and names for wrong choices."""
        draw = rng.random()
        if draw < 0.06:
            return blank_pixels(rng), d.BLANK, ()
        if self.photographs is not None and draw < 0.56:
            return _draw_picture(rng, self.photographs)
        if self.emoji is not None and draw < 0.59:
            return _draw_picture(rng, self.emoji)
        index = rng.randrange(len(self.bank))
        scene = self.bank.scene(index)
        shown = d.shown_scene(scene)
        if scene.text:
            known = scene.text in (*phrases("train", risky=False), *notices("train"))
            others = tuple(p.lower() for risky in (True, False) for p in phrases("train", risky=risky))
            shown = d.Shown(shown.name, shown.noun, shown.caption, risky=not known, text=shown.text)
            return self.bank.pixels[index], shown, others
        pixels = self.bank.pixels[index]
        return (pixels[:, ::-1] if rng.random() < 0.5 else pixels), shown, _drawn_names()

    def image_row(
        self, rng: random.Random, packer: Packer, *, turns: int
    ) -> tuple[NDArray[np.uint8], list[list[int]]]:
        """Pixels and a packed row of visual instruction data: no refusals."""
        pixels, shown, others = self.draw_image(rng)
        made = [
            d.visual_turn(rng, "train", shown, others=others, things=self.pools.things) for _ in range(turns)
        ]
        chat = rng.random() < 0.15
        return pixels, packer.chat_row(made) if chat else packer.image_row(made)

    def text_row(self, rng: random.Random, packer: Packer, *, turns: int) -> list[list[int]]:
        """A packed row of text dialogues."""
        return packer.text_row([d.text_turn(rng, "train", self.pools) for _ in range(turns)])

    def texts(self, count: int, *, seed: int) -> list[str]:
        """Dialogue texts to train a tokenizer on."""
        rng, found = random.Random(seed), []
        for i in range(count):
            if i % 2:
                turn = d.text_turn(rng, "train", self.pools)
            else:
                _, shown, others = self.draw_image(rng)
                turn = d.visual_turn(rng, "train", shown, others=others, things=self.pools.things)
            found.append(f"USER: {turn.question} ASSISTANT: {turn.answer}")
        return found


def _draw_picture(
    rng: random.Random, pictures: Photographs
) -> tuple[NDArray[np.uint8], d.Shown, tuple[str, ...]]:
    index = rng.randrange(len(pictures))
    shown = d.shown_photo(
        pictures.labels[index], pictures.captions[index], risky=pictures.risk_levels[index] != "safe"
    )
    pixels = pictures.pixels[index]
    others = tuple(pictures.labels[rng.randrange(len(pictures))] for _ in range(24))
    others = tuple(dict.fromkeys((*others, "umbrella", "goldfish", "desk", "alp")))
    return (pixels[:, ::-1] if rng.random() < 0.5 else pixels), shown, others


def _drawn_names() -> tuple[str, ...]:
    return (*RISKS, *d.drawn_things())


def blank_pixels(rng: random.Random, split: str = "train") -> NDArray[np.uint8]:
    """An image with only a background, uint8 (64, 64, 3)."""
    return np.asarray(choose_background(rng, split, 256)[1].resize((64, 64), Image.Resampling.BOX))


def open_corpus(bank: SceneBank, *, photos: Path | None, cache: Path | None = None) -> Corpus:
    """The training corpus, with photographs, emoji and prompts where `photos` is given."""
    if photos is None:
        return Corpus(bank, d.TextPools(d.drawn_things()))
    pictures = load_photographs(photos, split="train", cache=cache)
    emoji = load_emoji(photos, split="train", cache=cache)
    safe = {a for a, level in zip(pictures.labels, pictures.risk_levels, strict=True) if level == "safe"}
    things = (*d.drawn_things() * 2, *sorted(safe))
    harmful, harmless = read_prompts(photos, split="train")
    return Corpus(bank, d.TextPools(things, harmful, harmless), pictures, emoji)


def read_prompts(folder: Path, *, split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Harmful and harmless prompts of at most 160 characters from `folder`/prompts/prompts.jsonl."""
    path = Path(folder) / "prompts" / "prompts.jsonl"
    rows = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )
    kept = [row for row in rows if row["split"] == split and len(row["text"]) <= 160]
    harmful = tuple(row["text"] for row in kept if row["harmful"])
    return harmful, tuple(row["text"] for row in kept if not row["harmful"])
