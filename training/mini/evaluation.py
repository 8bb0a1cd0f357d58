"""The evaluation's items: questions about held-out images, with what they have in common."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from PIL import Image

from . import dialogues as d
from . import wording as w
from .backgrounds import choose_background
from .photographs import Photographs, load_photographs
from .pictograms import RISKS
from .scenes import SIZE, render

PHOTOS, NATIVE = "photos", "photos_native"
"""The packs of photographs; the second is by other makers."""


@dataclass(frozen=True)
class EvalItem:
    """One question of an evaluation.

    `image` is RGB or None; `answer` is the short expected answer (a name or a choice's letter) or "" where any
    answer will do; `risk_level` and `risk_category` are the image's (or, without an image, the request's).
    `thing` is what is shown or named, or the written phrase; `template` is the question's, with its slots.
    """

    image: Image.Image | None
    prompt: str
    answer: str
    risk_level: str
    risk_category: str
    thing: str
    template: str


@dataclass(frozen=True)
class _Case:
    """An image, its words and its labels."""

    image: Image.Image
    shown: d.Shown
    level: str
    category: str

    def ask(self, template: str, *, prompt: str = "", answer: str = "") -> EvalItem:
        """An item about the image; the prompt is the template where none is given."""
        thing = self.shown.text or self.shown.name
        return EvalItem(self.image, prompt or template, answer, self.level, self.category, thing, template)


@dataclass(frozen=True)
class _Draw:
    """What sets are drawn from; every set has its own randomness, so that it is the same beside any others."""

    split: str
    n: int
    seed: int
    photos: Path | None

    def rng(self, name: str) -> random.Random:
        return random.Random(f"evaluation:{self.split}:{self.seed}:{name}")

    def scenes(self, kind: str) -> list[_Case]:
        rng = self.rng(kind)
        return [_scene(rng, self.split, kind) for _ in range(self.n)]

    def photographs(self, pack: str, *, risky: bool) -> list[_Case]:
        """At most `n` different photographs: an item that comes twice is no second observation."""
        if self.photos is None or not (self.photos / pack).is_dir():
            return []
        pictures = _pictures(self.photos, self.split, pack)
        chosen = [i for i, level in enumerate(pictures.risk_levels) if (level != "safe") == risky]
        rng = self.rng(f"{pack}:{risky}")
        return [_photograph(pictures, i, risky=risky) for i in rng.sample(chosen, min(self.n, len(chosen)))]

    @cached_property
    def risky(self) -> list[tuple[EvalItem, str]]:
        """Requests that point at risky scenes, and each with the thing named."""
        rng = self.rng("requests")
        found = []
        for case in self.scenes("risky"):
            template = rng.choice(w.wording(w.REQUESTS, self.split))
            pointed = template.format(x=rng.choice(w.wording(w.REFERENTS, self.split)))
            found.append((case.ask(template, prompt=pointed), template.format(x=case.shown.noun)))
        return found


def _risky_scenes(draw: _Draw) -> list[EvalItem]:
    return [item for item, _ in draw.risky]


def _text(draw: _Draw) -> list[EvalItem]:
    return [replace(item, image=None, prompt=named) for item, named in draw.risky]


def _text_blank(draw: _Draw) -> list[EvalItem]:
    rng = draw.rng("blank")
    return [
        replace(item, image=choose_background(rng, draw.split, SIZE)[1], prompt=named)
        for item, named in draw.risky
    ]


def _requests(name: str, cases: Callable[[_Draw], list[_Case]]) -> Callable[[_Draw], list[EvalItem]]:
    """A maker of requests about what each image shows."""

    def make(draw: _Draw) -> list[EvalItem]:
        rng = draw.rng(name)
        return [_request(rng, draw.split, case) for case in cases(draw)]

    return make


def _questions(
    name: str, cases: Callable[[_Draw], list[_Case]], pack: str = ""
) -> Callable[[_Draw], list[EvalItem]]:
    """A maker of requests, questions for the name and four-way choices, by turns."""

    def make(draw: _Draw) -> list[EvalItem]:
        rng = draw.rng(name)
        found = cases(draw)
        others = _names(draw, pack) if pack and found else (*RISKS, *d.drawn_things())
        return [_question(rng, draw.split, case, i % 3, others) for i, case in enumerate(found)]

    return make


def _question(rng: random.Random, split: str, case: _Case, kind: int, others: Sequence[str]) -> EvalItem:
    if kind == 0:
        return _request(rng, split, case)
    if kind == 1:
        return case.ask(rng.choice(w.wording(w.CAPTION_QUESTIONS, split)), answer=case.shown.name)
    turn = d.choice_turn(rng, split, case.shown, others=others)
    letter = turn.answer.rstrip(".")[-1]
    return case.ask(turn.question.partition(" A. ")[0], prompt=turn.question, answer=letter)


def _request(rng: random.Random, split: str, case: _Case) -> EvalItem:
    """A request about an image without the name of what it shows."""
    if case.shown.text:
        return case.ask(rng.choice(w.wording(w.WRITTEN_REQUESTS, split)))
    template = rng.choice(w.wording(w.REQUESTS, split))
    return case.ask(template, prompt=template.format(x=rng.choice(w.wording(w.REFERENTS, split))))


def _words(draw: _Draw) -> list[EvalItem]:
    """By turns a notice, whose words are asked for, and a harmless instruction, which is to be followed."""
    rng = draw.rng("words")
    items = []
    for i in range(draw.n):
        if i % 2:
            items.append(_request(rng, draw.split, _scene(rng, draw.split, "typographic_harmless")))
        else:
            notice = _scene(rng, draw.split, "typographic_notice")
            items.append(notice.ask(rng.choice(w.wording(w.READING_QUESTIONS, draw.split))))
    return items


_MAKERS: Mapping[str, Callable[[_Draw], list[EvalItem]]] = {
    "risky_scenes": _risky_scenes,
    "risky_photos": _requests("risky_photos", lambda draw: draw.photographs(PHOTOS, risky=True)),
    "risky_native": _requests("risky_native", lambda draw: draw.photographs(NATIVE, risky=True)),
    "typographic": _requests("typographic", lambda draw: draw.scenes("typographic_risky")),
    "text": _text,
    "text_blank": _text_blank,
    "ordinary_scenes": _questions("ordinary_scenes", lambda draw: draw.scenes("ordinary")),
    "ordinary_photos": _questions(
        "ordinary_photos", lambda draw: draw.photographs(PHOTOS, risky=False), PHOTOS
    ),
    "ordinary_native": _questions(
        "ordinary_native", lambda draw: draw.photographs(NATIVE, risky=False), NATIVE
    ),
    "lookalike": _questions("lookalike", lambda draw: draw.scenes("lookalike")),
    "words": _words,
}
SETS = tuple(_MAKERS)
"""Names of the sets."""


def evaluation_sets(
    split: str, n: int, seed: int, photos: Path | str | None = None, *, names: Sequence[str] = SETS
) -> dict[str, list[EvalItem]]:
    """`n` items of each set, worded and drawn for the split.

    `risky_scenes`, `risky_photos`, `risky_native`, `typographic`: requests about what a risky image shows;
    `text`: the requests of `risky_scenes` with the thing named and no image; `text_blank`: the same beside an
    empty picture; `ordinary_scenes`, `ordinary_photos`, `ordinary_native`, `lookalike`: by turns a request, a
    question for the name and a four-way choice; `words`: notices and harmless instructions, written in a picture.
    The sets of photographs are empty without their pack, and end where the split has no more photographs.

    Args:
        split: "tune" or "test".
        n: items of each set.
        seed: of what is drawn and asked; the items of a set do not depend on which others are made.
        photos: folder with the packs of photographs.
        names: the sets to make.

    Raises:
        ValueError: a name that is no set.
    """
    if unknown := sorted(set(names) - set(SETS)):
        raise ValueError(f"unknown sets {unknown}; there are {', '.join(SETS)}")
    draw = _Draw(split, n, seed, None if photos is None else Path(photos))
    return {name: _MAKERS[name](draw) for name in names}


def _scene(rng: random.Random, split: str, kind: str) -> _Case:
    scene = render(rng.randrange(1 << 40), split, kind)
    return _Case(scene.image, d.shown_scene(scene), scene.risk_level, scene.risk_category)


def _photograph(pictures: Photographs, index: int, *, risky: bool) -> _Case:
    shown = d.shown_photo(pictures.labels[index], pictures.captions[index], risky=risky)
    level, category = pictures.risk_levels[index], pictures.risk_categories[index]
    return _Case(pictures.image(index), shown, level, category)


def _names(draw: _Draw, pack: str) -> tuple[str, ...]:
    """Labels of the pack, from which wrong choices are drawn."""
    return () if draw.photos is None else tuple(sorted(set(_pictures(draw.photos, draw.split, pack).labels)))


@lru_cache(maxsize=4)
def _pictures(photos: Path, split: str, pack: str) -> Photographs:
    return load_photographs(photos, split=split, packs=(pack,))
