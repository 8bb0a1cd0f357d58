"""The mini model's training corpus: features of images with what they show, prompts, and rows drawn from them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from . import dialogues as d
from .augment import augment
from .backgrounds import choose_background
from .features import Features, open_features, open_views
from .packing import Packer
from .photographs import Photographs, load_emoji, load_photographs
from .phrases import notices, phrases
from .pictograms import RISKS
from .picture_views import View
from .scene_bank import SceneBank
from .tower import SIZE

BLANKS = 600
"""Empty pictures of the corpus."""
VIEWS = 2
"""Views of a picture or a scene: as it is, and augmented."""


@dataclass(frozen=True)
class Album:
    """Pictures with their features in several views; `chances` are weights of drawing each."""

    pictures: Photographs
    views: list[Features]
    chances: list[float]

    def draw(self, rng: random.Random) -> tuple[NDArray[np.uint8], d.Shown, tuple[str, ...]]:
        """Features (49, 1280), what the picture shows, and names for wrong choices."""
        pictures = self.pictures
        index = rng.choices(range(len(pictures)), cum_weights=self.chances)[0]
        shown = d.shown_photo(pictures.labels[index], pictures.captions[index], risky=pictures.risky(index))
        others = tuple(rng.choice(pictures.labels) for _ in range(24))
        others = tuple(dict.fromkeys((*others, "umbrella", "goldfish", "desk", "alp")))
        return rng.choice(self.views)[index], shown, others


@dataclass(frozen=True)
class Corpus:
    """What dialogues are drawn from; photographs and emoji are None where no data folder is given."""

    bank: SceneBank
    scene_views: list[Features]
    blanks: Features
    pools: d.TextPools
    photographs: Album | None = None
    emoji: Album | None = None

    def draw_image(self, rng: random.Random) -> tuple[NDArray[np.uint8], d.Shown, tuple[str, ...]]:
        """Features (49, 1280), what the image shows, and names for wrong choices."""
        draw = rng.random()
        if draw < 0.06:
            return rng.choice(self.blanks), d.BLANK, ()
        if self.photographs is not None and draw < 0.56:
            return self.photographs.draw(rng)
        if self.emoji is not None and draw < 0.59:
            return self.emoji.draw(rng)
        index = rng.randrange(len(self.bank))
        shown = d.shown_scene(self.bank.scene(index))
        if shown.text:
            known = shown.text.upper() in (*phrases("train", risky=False), *notices("train"))
            shown = d.Shown(shown.name, shown.noun, shown.caption, risky=not known, text=shown.text)
        others = _written() if shown.text else (*RISKS, *d.drawn_things())
        return rng.choice(self.scene_views)[index], shown, others

    def names(self) -> tuple[str, ...]:
        """What there is to name in the images, without repetition."""
        albums = [album.pictures.labels for album in (self.photographs, self.emoji) if album is not None]
        return tuple(sorted({*RISKS, *d.drawn_things()}.union(*albums)))

    def image_row(
        self, rng: random.Random, packer: Packer, *, turns: int
    ) -> tuple[NDArray[np.uint8], list[list[int]], str]:
        """Features, a packed row of visual instruction data (no refusals), and the name of what is shown."""
        features, shown, others = self.draw_image(rng)
        made = [
            d.visual_turn(rng, "train", shown, others=others, things=self.pools.things) for _ in range(turns)
        ]
        chat = rng.random() < 0.15
        return features, packer.chat_row(made) if chat else packer.image_row(made), shown.name

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


def _written() -> tuple[str, ...]:
    return tuple(p.lower() for risky in (True, False) for p in phrases("train", risky=risky))


def blank_image(rng: random.Random, split: str = "train") -> Image.Image:
    """An image with only a background, RGB of 224 x 224 pixels."""
    return choose_background(rng, split, SIZE)[1]


@dataclass(frozen=True)
class SceneView:
    """View `number` of a bank's scenes: 0 as they are, the others augmented so that words stay readable."""

    bank: SceneBank
    number: int

    def __call__(self, index: int) -> Image.Image:
        """RGB of 224 x 224 pixels; the same for the same scene and number."""
        image = self.bank.scene(index).image
        if not self.number:
            return image
        written = bool(self.bank.facts[index]["text"])
        rng = random.Random(f"{self.number}:{index}")
        return augment(image, rng, size=SIZE, smallest=0.93 if written else 0.8, flip=not written)


def _blank(index: int) -> Image.Image:
    return blank_image(random.Random(f"blank:{index}"))


def open_corpus(
    bank: SceneBank,
    tower: nn.Module,
    *,
    photos: Path | None,
    cache: Path,
    dtype: torch.dtype = torch.float32,
    blanks: int = BLANKS,
) -> Corpus:
    """The training corpus, with photographs, emoji and prompts where `photos` is given.

    Args:
        bank: of training scenes.
        tower: computes the features that the folder `cache` does not hold yet, in `dtype`.
        blanks: number of empty pictures.
    """
    views = partial(open_views, tower=tower, views=VIEWS, dtype=dtype)
    scenes = views(cache / f"{bank.path.stem}-seen", count=len(bank), view=partial(SceneView, bank))
    empty = open_features(cache / "blank.npy", tower, count=blanks, draw=_blank, dtype=dtype)
    if photos is None:
        return Corpus(bank, scenes, empty, d.TextPools(d.drawn_things()))
    pictures, emoji = load_photographs(photos, split="train"), load_emoji(photos, split="train")
    albums = [
        Album(own, views(cache / name, count=len(own), view=partial(View, own)), _chances(own))
        for name, own in (("photos-train", pictures), ("emoji-train", emoji))
    ]
    safe = {label for i, label in enumerate(pictures.labels) if not pictures.risky(i)}
    things = (*d.drawn_things() * 2, *sorted(safe))
    harmful, harmless = read_prompts(photos, split="train")
    return Corpus(bank, scenes, empty, d.TextPools(things, harmful, harmless), *albums)


def _chances(pictures: Photographs) -> list[float]:
    """Cumulative weights: the few photographs of other makers count three times."""
    weights = [3.0 if pack == "photos_native" else 1.0 for pack in pictures.packs]
    return list(accumulate(weights))


def read_prompts(folder: Path, *, split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Harmful and harmless prompts of at most 160 characters from `folder`/prompts/prompts.jsonl."""
    path = Path(folder) / "prompts" / "prompts.jsonl"
    rows = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )
    kept = [row for row in rows if row["split"] == split and len(row["text"]) <= 160]
    harmful = tuple(row["text"] for row in kept if row["harmful"])
    return harmful, tuple(row["text"] for row in kept if not row["harmful"])
