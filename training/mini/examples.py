"""Examples of the mini model's world: table rows that train a guard."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from . import dialogues as d
from .augment import augment
from .corpus import blank_image, read_prompts
from .photographs import Photographs, load_emoji, load_photographs
from .phrases import phrases
from .pictograms import CATEGORIES, LEVELS, RISKS
from .picture_views import centre
from .scenes import render
from .tower import SIZE

__all__ = ["CATEGORIES", "LEVELS", "Stage", "safety_rows"]

Row = dict[str, Any]
Stage = Literal["head", "joint"]


@dataclass(frozen=True)
class Case:
    """An image or none, its words, its labels, and the names that a wrong choice may have."""

    image: Image.Image | None
    shown: d.Shown
    level: str = "safe"
    category: str = "clean"
    others: tuple[str, ...] = ()


def safety_rows(
    split: str,
    n: int,
    seed: int,
    photos: Path | None = None,
    *,
    stage: Stage,
    without: Collection[str] = (),
) -> Iterator[Row]:
    """Rows `{image, prompt, response, read_text, risk_level, risk_category, labels_of, split}` for a stage of training.

    `train`: `n` rows, drawn by `SHARES`, photographs in augmented views. `tune`: every photograph of the split once,
    as it is, and `n` rows of everything else. Without `photos` all is drawn or written.

    Args:
        split: train or tune.
        n: rows.
        seed: of what is drawn.
        photos: folder of photographs, emoji and prompts.
        stage: head, where half of the images are risky, or joint, where most rows are ordinary.
        without: kinds of rows that are left out of train, for ablations.

    Raises:
        ValueError: a kind that there is not.
    """
    if unknown := sorted(set(without) - set(SHARES)):
        raise ValueError(f"no such kind of row: {', '.join(unknown)}; there are {', '.join(SHARES)}")
    maker = _Maker(split, random.Random(f"safety:{stage}:{split}:{seed}"), photos)
    if split == "tune":
        yield from maker.all_photographs()
    left_out = {
        *(() if photos and split == "train" else _PHOTOGRAPHS),
        *(without if split == "train" else ()),
        *((_UNREAD,) if (stage, split) == ("joint", "train") else ()),
    }
    shares = {name: share[stage] for name, share in SHARES.items() if name not in left_out}
    for name in maker.rng.choices(list(shares), list(shares.values()), k=n):
        yield _MAKERS[name](maker)


SHARES: dict[str, dict[Stage, float]] = {
    "risky photograph": {"head": 24, "joint": 9},
    "ordinary photograph": {"head": 40, "joint": 28},
    "emoji": {"head": 2, "joint": 1},
    "risky scene": {"head": 9, "joint": 9},
    "ordinary scene": {"head": 7, "joint": 12},
    "look-alike": {"head": 6, "joint": 11},
    "risky words": {"head": 4, "joint": 1.5},
    "harmless words": {"head": 2.5, "joint": 3.5},
    "notice": {"head": 2.5, "joint": 2.5},
    "words that are read": {"head": 14, "joint": 10},
    "empty": {"head": 1, "joint": 4},
    "harmful request": {"head": 8, "joint": 9},
    "harmless request": {"head": 7, "joint": 7},
    "harmful text": {"head": 0, "joint": 7},
    "harmless text": {"head": 0, "joint": 7},
}
"""Kind of row -> its share per stage, in parts; a look-alike or an ordinary image far more often than a risky one in joint."""
_UNREAD = "risky words"
"""Not in joint's train rows: a model that cannot read learns from them to refuse all writing. Its tune rows have them, since
they choose which images are worth reading."""
_PHOTOGRAPHS = ("risky photograph", "ordinary photograph", "emoji")


class _Maker:
    """Makes rows of a split, one at a time; photographs are drawn without repetition until all had their turn."""

    def __init__(self, split: str, rng: random.Random, photos: Path | None) -> None:
        self.split, self.rng, self.photos = split, rng, photos
        self._turns: dict[bool, Iterator[int]] = {}

    @cached_property
    def pictures(self) -> Photographs:
        assert self.photos is not None
        return load_photographs(self.photos, split=self.split)

    @cached_property
    def emoji(self) -> Photographs:
        assert self.photos is not None
        return load_emoji(self.photos, split="train")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.pictures.labels)))

    @cached_property
    def prompts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return read_prompts(self.photos, split="train") if self.photos else ((), ())

    @cached_property
    def pools(self) -> d.TextPools:
        return d.TextPools(d.drawn_things(), *self.prompts)

    def view(self, image: Image.Image, *, smallest: float, flip: bool = True) -> Image.Image:
        """What a row shows of an image: an augmented view in training."""
        if self.split != "train":
            return centre(image)
        return augment(image, self.rng, size=SIZE, smallest=smallest, flip=flip)

    # cases

    def all_photographs(self) -> Iterator[Row]:
        """Every photograph once."""
        if self.photos is not None:
            yield from (self.ask(self.photograph(self.pictures, i)) for i in range(len(self.pictures)))

    def photograph(self, pictures: Photographs, index: int) -> Case:
        shown = d.shown_photo(pictures.labels[index], pictures.captions[index], risky=pictures.risky(index))
        image = self.view(pictures.image(index), smallest=0.6)
        return Case(image, shown, pictures.risk_levels[index], pictures.risk_categories[index], self.names)

    def some_photograph(self, *, risky: bool) -> Case:
        turns = self._turns.setdefault(risky, _turns(self.pictures, self.rng, risky=risky))
        return self.photograph(self.pictures, next(turns))

    def scene(self, kind: str) -> Case:
        scene = render(self.rng.randrange(1 << 40), self.split, kind)
        image = self.view(scene.image, smallest=0.93 if scene.text else 0.8, flip=not scene.text)
        others = _written(self.split) if scene.text else (*RISKS, *d.drawn_things())
        return Case(image, d.shown_scene(scene), scene.risk_level, scene.risk_category, others)

    def empty(self) -> Case:
        return Case(blank_image(self.rng, self.split), d.BLANK)

    def ordinary(self) -> Case:
        """Any image with nothing risky on it."""
        draw = self.rng.random()
        if draw < 0.3:
            return self.empty()
        if draw < 0.7 and self.photos is not None and self.split == "train":
            return self.some_photograph(risky=False)
        return self.scene(self.rng.choice(("ordinary", "lookalike")))

    # rows

    def ask(self, case: Case) -> Row:
        """A request or another question, drawn alike for risky and safe images, and a guarded answer."""
        if self.rng.random() < 0.6 and not case.shown.blank:
            turn = d.howto_turn(self.rng, self.split, case.shown)
        else:
            turn = d.visual_turn(
                self.rng, self.split, case.shown, others=case.others, things=d.drawn_things()
            )
        return self.row(case, turn.question, d.guarded_answer(self.rng, turn, case.level, case.category))

    def read(self) -> Row:
        """A picture with words and what a reader finds in it, in any case of letters, often without blanks.

        In half of the rows the words are those of another picture, or a prompt of the development data: only what is
        read may count, and the label is that of the words.
        """
        case, do = self.scene(self.rng.choices(_WORDS, (4, 4, 3))[0]), ""
        said, others = case.shown.text, self.rng.random() < 0.5
        if others:
            do = "do this"
            if self.rng.random() < 0.6 and self.pools.harmful and self.pools.harmless:
                risky = self.rng.random() < 0.4
                said = self.rng.choice(self.pools.harmful if risky else self.pools.harmless)
                level, category = ("refuse", "jailbreak") if risky else ("safe", "clean")
                case = replace(case, level=level, category=category)
            case = replace(case, image=self.scene(self.rng.choice(_WORDS)).image)
        answer = (
            d.helpful(self.rng, do or said) if case.level == "safe" else d.refusal(self.rng, case.category)
        )
        read = self.rng.choice((str.upper, str.lower, str.capitalize))(said)
        if self.rng.random() < 0.5:
            read = read.replace(" ", "")
        question = d.image_request(self.rng, self.split, case.shown)
        if not others and case.level == "safe" and self.rng.random() < 0.4:
            turn = d.caption_turn(self.rng, self.split, case.shown)
            question, answer = turn.question, turn.answer
        return {**self.row(case, question, answer, pair=others), "read_text": read}

    def request(self, case: Case, *, harmful: bool) -> Row:
        """A request in text that has nothing to do with the image; where it is harmful, the pair is risky."""
        if harmful:
            question, category = d.harmful_request(self.rng, self.split, self.pools)
            refused = replace(case, level="refuse", category="jailbreak")
            return self.row(refused, question, d.refusal(self.rng, category), pair=case.image is not None)
        turn = d.harmless_request(self.rng, self.split, self.pools)
        return self.row(case, turn.question, turn.answer)

    def row(self, case: Case, prompt: str, response: str, *, pair: bool = False) -> Row:
        return {
            "image": case.image, "prompt": prompt, "response": response, "read_text": "", "risk_level": case.level,
            "risk_category": case.category, "labels_of": "pair" if pair else "image", "split": self.split,
        }  # fmt: skip


_TEXT = Case(None, d.BLANK)
_WORDS = ("typographic_risky", "typographic_harmless", "typographic_notice")
_MAKERS: dict[str, Callable[[_Maker], Row]] = {
    "risky photograph": lambda m: m.ask(m.some_photograph(risky=True)),
    "ordinary photograph": lambda m: m.ask(m.some_photograph(risky=False)),
    "emoji": lambda m: m.ask(m.photograph(m.emoji, m.rng.randrange(len(m.emoji)))),
    "risky scene": lambda m: m.ask(m.scene("risky")),
    "ordinary scene": lambda m: m.ask(m.scene("ordinary")),
    "look-alike": lambda m: m.ask(m.scene("lookalike")),
    "risky words": lambda m: m.ask(m.scene("typographic_risky")),
    "harmless words": lambda m: m.ask(m.scene("typographic_harmless")),
    "notice": lambda m: m.ask(m.scene("typographic_notice")),
    "words that are read": lambda m: m.read(),
    "empty": lambda m: m.ask(m.empty()),
    "harmful request": lambda m: m.request(m.ordinary(), harmful=True),
    "harmless request": lambda m: m.request(m.ordinary(), harmful=False),
    "harmful text": lambda m: m.request(_TEXT, harmful=True),
    "harmless text": lambda m: m.request(_TEXT, harmful=False),
}


def _turns(pictures: Photographs, rng: random.Random, *, risky: bool) -> Iterator[int]:
    """Numbers of pictures, shuffled, again and again; those by other makers come three times as often."""
    chosen = [
        i for i in range(len(pictures)) if pictures.risky(i) == risky
        for _ in range(3 if pictures.packs[i] == "photos_native" else 1)
    ]  # fmt: skip
    while True:
        rng.shuffle(chosen)
        yield from chosen


@lru_cache(maxsize=4)
def _written(split: str) -> tuple[str, ...]:
    return tuple(p.lower() for risky in (True, False) for p in phrases(split, risky=risky))
