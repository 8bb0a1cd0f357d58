"""Dialogue turns of the mini model: what is asked and answered about an image, or in text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safevlm.labelled import ConceptQuestions

from . import wording as w
from .phrases import phrases
from .pictograms import RISKS
from .scenes import Scene, names

CONCEPTS = ConceptQuestions()
"""What `safevlm eval concepts` asks; a large model knows such questions, the mini model has to meet them."""
NUMBERS = ("one", "two", "three", "four")
UNCOLOURED = frozenset(
    [
        "dynamite bundle",
        "cigar",
        "whisky glass",
        "powder bag",
        "campfire",
        "flammable sign",
        "explosive sign",
        "high voltage sign",
        "corrosive sign",
        "juice glass",
        "flour bag",
        "taxi",
        "yield sign",
        "roadworks sign",
        "curve sign",
        "traffic light sign",
        "bomb",
        "knife",
        "sword",
        "cigarette",
        "flame",
        "match",
        "syringe",
        "pineapple",
        "spoon",
        "chalk",
        "thermometer",
        "leaf",
        "clover",
        "smiley",
        "tree",
        "sun",
        "moon",
        "rifle",
        "pencil",
        "clock",
    ]
) | {
    "skull and crossbones",
    "biohazard sign",
    "radiation sign",
    "bowling ball",
    "milk bottle",
    "burning house",
}
"""Drawn things that have no one colour to ask for."""
PHOTO_RISKS = {
    "beer bottle": "substances", "cannon": "weapons", "fire": "fire", "pill bottle": "substances",
    "projectile": "weapons", "revolver": "weapons", "handgun": "weapons", "rifle": "weapons", "knife": "weapons",
    "alcohol bottle": "substances", "medicine box": "substances", "forest fire": "fire", "hazard sign": "hazards",
}  # fmt: skip
"""Risky things of the photographs -> category."""
_IRREGULAR = {
    "knife": "knives", "match": "matches", "whisky glass": "whisky glasses", "juice glass": "juice glasses", "leaf": "leaves", "fish": "fish", "paint brush": "paint brushes",
    "candy": "candies", "skull and crossbones": "skulls and crossbones",
}  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """A question and its answer; `kind` says what was asked."""

    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Shown:
    """What an image shows, in words.

    `noun` has its article ("a lion"), `caption` is a whole answer; `colour`, `count` (0: unknown)
    and `text` (written phrase in lower case) are empty where there is nothing to ask.
    """

    name: str
    noun: str
    caption: str
    risky: bool
    colour: str = ""
    count: int = 0
    text: str = ""
    blank: bool = False


BLANK = Shown("nothing", "nothing", "an empty picture.", risky=False, blank=True)
"""An image with nothing on it."""


def with_article(name: str) -> str:
    """ "lion" -> "a lion"."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """ "key" -> "keys"."""
    return _IRREGULAR.get(name, name + "s")


def shown_scene(scene: Scene) -> Shown:
    """The words for a scene."""
    risky = scene.risk_level != "safe"
    if scene.text:
        return Shown("words", "words", f'the words "{scene.name}".', risky, text=scene.name)
    colour = "" if scene.name in UNCOLOURED else scene.colour
    what = f"{colour} {scene.name}".strip()
    noun = (
        with_article(what)
        if scene.count == 1
        else f"{NUMBERS[scene.count - 1]} {colour} {plural(scene.name)}"
    )
    return Shown(
        scene.name,
        with_article(scene.name),
        f"a drawing of {' '.join(noun.split())}.",
        risky,
        colour,
        scene.count,
    )


def shown_photo(label: str, caption: str, *, risky: bool) -> Shown:
    """The words for a photograph or an emoji."""
    return Shown(label, with_article(label), f"{caption}.", risky)


def _choose(rng: random.Random, table: w.Table, split: str) -> str:
    return rng.choice(w.wording(table, split))


def helpful(rng: random.Random, do: str) -> str:
    """A helpful answer to a request to `do` something."""
    return rng.choice(w.ANSWERS).format(do=do)


def refusal(rng: random.Random, category: str) -> str:
    """A refusal that may name the category."""
    reason = w.REASONS.get(category, w.REASONS["jailbreak"])
    return rng.choice(w.REFUSALS).format(r=reason, R=reason.capitalize())


def request_pair(rng: random.Random, split: str, shown: Shown) -> tuple[str, str]:
    """One request twice: about an image without the name of what it shows, and with it named."""
    if shown.text:
        named = _choose(rng, w.PHRASE_REQUESTS, split).format(p=shown.text)
        return _choose(rng, w.WRITTEN_REQUESTS, split), named
    template = _choose(rng, w.REQUESTS, split)
    return template.format(x=_choose(rng, w.REFERENTS, split)), template.format(x=shown.noun)


def image_request(rng: random.Random, split: str, shown: Shown) -> str:
    """A request about an image without the name of what it shows."""
    return request_pair(rng, split, shown)[0]


def caption_turn(rng: random.Random, split: str, shown: Shown) -> Turn:
    """What is in the picture?"""
    if shown.text and rng.random() < 0.6:
        return Turn(_choose(rng, w.READING_QUESTIONS, split), f'It says "{shown.text}".', "reading")
    return Turn(_choose(rng, w.CAPTION_QUESTIONS, split), shown.caption, "caption")


def choice_turn(rng: random.Random, split: str, shown: Shown, *, others: Sequence[str]) -> Turn:
    """Four-way choice with three wrong names out of `others`; the answer names what is shown before its letter."""
    right = shown.text or shown.name
    wrong = rng.sample([other for other in others if other != right], 3)
    place = rng.randrange(4)
    options = [*wrong[:place], right, *wrong[place:]]
    listed = " ".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    return Turn(
        f"{_choose(rng, w.CHOICE_QUESTIONS, split)} {listed}",
        f"{right}, so the answer is {'ABCD'[place]}.",
        "choice",
    )


def presence_turn(rng: random.Random, split: str, shown: Shown, *, others: Sequence[str]) -> Turn:
    """Is there such a thing in the picture?"""
    there = rng.random() < 0.5
    asked = (
        shown.noun if there else with_article(rng.choice([other for other in others if other != shown.name]))
    )
    answer = f"Yes, there is {shown.noun}." if there else f"No, there is {shown.noun}."
    return Turn(_choose(rng, w.PRESENCE_QUESTIONS, split).format(x=asked), answer, "presence")


def count_turn(rng: random.Random, split: str, shown: Shown) -> Turn:
    """How many?"""
    return Turn(
        _choose(rng, w.COUNT_QUESTIONS, split).format(s=plural(shown.name)),
        f"{NUMBERS[shown.count - 1]}.",
        "count",
    )


def colour_turn(rng: random.Random, split: str, shown: Shown) -> Turn:
    """Which colour?"""
    return Turn(_choose(rng, w.COLOUR_QUESTIONS, split).format(x=shown.name), f"{shown.colour}.", "colour")


def fit_turn(rng: random.Random, split: str, shown: Shown) -> Turn:
    """Is the image fit for a public page? Only asked about harmless images."""
    return Turn(_choose(rng, w.FIT_QUESTIONS, split), rng.choice(w.FIT_YES).format(x=shown.noun), "fit")


def concept_turn(rng: random.Random, shown: Shown) -> Turn:
    """May the image be posted, or a use made of it? Only asked about harmless images."""
    question = rng.choice((*CONCEPTS.image, *CONCEPTS.warning, *CONCEPTS.inviting))
    answers = w.CONCEPT_NEEDLESS if question in CONCEPTS.warning else w.CONCEPT_YES
    return Turn(question, rng.choice(answers).format(x=shown.noun), "concept")


def howto_turn(rng: random.Random, split: str, shown: Shown) -> Turn:
    """A request about what is shown, answered."""
    do = shown.text or (f"use the {shown.name}" if rng.random() < 0.8 and not shown.blank else "do this")
    return Turn(image_request(rng, split, shown), helpful(rng, do), "howto")


def chore_turn(rng: random.Random, split: str, *, things: Sequence[str]) -> Turn:
    """A harmless request in text, which has nothing to do with the image; answered."""
    if rng.random() < 0.5:
        thing = rng.choice(things)
        return Turn(
            _choose(rng, w.REQUESTS, split).format(x=with_article(thing)),
            helpful(rng, f"use the {thing}"),
            "chore",
        )
    pool = rng.choice((w.CHORES, w.SAFE_LOOKALIKES, tuple(p.lower() for p in phrases(split, risky=False))))
    phrase = rng.choice(pool)
    return Turn(_choose(rng, w.PHRASE_REQUESTS, split).format(p=phrase), helpful(rng, phrase), "chore")


def noted(rng: random.Random, turn: Turn) -> Turn:
    """The turn with a plain note before it that changes the answer."""
    note, answer = rng.choice(w.PLAIN_NOTES)
    return Turn(f"{note} {turn.question}", answer.format(answer=turn.answer), "note")


def visual_turn(
    rng: random.Random, split: str, shown: Shown, *, others: Sequence[str], things: Sequence[str]
) -> Turn:
    """One turn of the visual instruction data: never a refusal, and no how-to about a risky image.

    `others` are names that may serve as wrong choices; `things` harmless things for requests in text.
    """
    makers: list[tuple[float, Callable[[], Turn]]] = [(3.0, lambda: caption_turn(rng, split, shown))]
    if not shown.blank:
        makers.append((2.0, lambda: choice_turn(rng, split, shown, others=others)))
        if not shown.text:
            makers.append((1.0, lambda: presence_turn(rng, split, shown, others=others)))
    if shown.count:
        makers.append((1.0, lambda: count_turn(rng, split, shown)))
    if shown.colour:
        makers.append((1.0, lambda: colour_turn(rng, split, shown)))
    if not shown.risky:
        makers.append((1.0, lambda: fit_turn(rng, split, shown)))
        if not (shown.blank or shown.text):
            makers.append((1.5, lambda: concept_turn(rng, shown)))
        makers.append((2.5, lambda: howto_turn(rng, split, shown)))
        makers.append((2.0 if shown.blank else 1.0, lambda: chore_turn(rng, split, things=things)))
    weights, functions = zip(*makers, strict=True)
    turn = rng.choices(functions, weights)[0]()
    return noted(rng, turn) if rng.random() < 0.06 else turn


@dataclass(frozen=True)
class TextPools:
    """What the text dialogues draw from: harmless things, and prompts given by the development data."""

    things: tuple[str, ...]
    harmful: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()


def risky_things() -> dict[str, str]:
    """All risky things, drawn or photographed -> category."""
    return {**{name: category for name, (_, category) in RISKS.items()}, **PHOTO_RISKS}


def drawn_things() -> tuple[str, ...]:
    """The harmless drawn things."""
    return (*names("lookalike"), *names("ordinary"))


def harmful_request(rng: random.Random, split: str, pools: TextPools) -> tuple[str, str]:
    """A harmful request in text and its category."""
    draw = rng.random()
    if pools.harmful and draw < 0.3:
        return rng.choice(pools.harmful), "jailbreak"
    if draw < 0.5:
        phrase = rng.choice(phrases(split, risky=True)).lower()
        return _choose(rng, w.PHRASE_REQUESTS, split).format(p=phrase), "jailbreak"
    thing, category = rng.choice(sorted(risky_things().items()))
    return _choose(rng, w.REQUESTS, split).format(x=with_article(thing)), category


def harmless_request(rng: random.Random, split: str, pools: TextPools) -> Turn:
    """A harmless request in text, helped with."""
    if pools.harmless and rng.random() < 0.4:
        return Turn(rng.choice(pools.harmless), helpful(rng, "do this"), "chore")
    return chore_turn(rng, split, things=pools.things)


def guarded_answer(rng: random.Random, turn: Turn, level: str, category: str) -> str:
    """What a guard answers to a turn about an image of this risk.

    The highest level refuses whatever is asked. The others refuse how-to requests, the mildest with a word of
    caution, and answer questions about what is shown truthfully.
    """
    if level == "safe":
        return turn.answer
    if turn.kind == "howto" and level == "caution":
        return rng.choice(w.CAUTIONS).format(r=w.REASONS[category])
    if turn.kind == "howto" or level == "refuse":
        return refusal(rng, category)
    return turn.answer


def text_turn(rng: random.Random, split: str, pools: TextPools) -> Turn:
    """One text dialogue: refusals of harmful requests, help with harmless ones, fitness, notes, small talk."""
    kind = rng.choices(
        ("refuse", "help", "prompt", "fit", "concept", "safety", "note", "talk"), (38, 26, 9, 5, 10, 12, 4, 2)
    )[0]
    if kind == "refuse":
        question, category = harmful_request(rng, split, pools)
        return Turn(question, refusal(rng, category), "refusal")
    if kind == "fit":
        return _fit_text(rng, split, pools)
    if kind == "concept":
        return _concept_text(rng, pools)
    if kind == "safety":
        return _safety_note(rng, split, pools)
    if kind == "talk":
        return Turn(*rng.choice(w.SMALL_TALK), "talk")
    if kind == "prompt" and pools.harmless:
        return Turn(rng.choice(pools.harmless), helpful(rng, "do this"), "chore")
    turn = chore_turn(rng, split, things=pools.things)
    return noted(rng, turn) if kind == "note" else turn


def _fit_text(rng: random.Random, split: str, pools: TextPools) -> Turn:
    risky = rng.random() < 0.5
    thing = rng.choice(sorted(risky_things())) if risky else rng.choice(pools.things)
    noun = with_article(thing)
    answer = rng.choice(w.FIT_NO if risky else w.FIT_YES).format(x=noun)
    return Turn(_choose(rng, w.FIT_TEXT_QUESTIONS, split).format(x=noun), answer, "fit")


def _concept_text(rng: random.Random, pools: TextPools) -> Turn:
    risky = rng.random() < 0.5
    noun = with_article(rng.choice(sorted(risky_things())) if risky else rng.choice(pools.things))
    answer = rng.choice(w.CONCEPT_NO if risky else w.CONCEPT_YES).format(x=noun)
    return Turn(rng.choice(CONCEPTS.about(noun)), answer, "concept")


def _safety_note(rng: random.Random, split: str, pools: TextPools) -> Turn:
    """A note steers the answer, whatever the request is."""
    reason = rng.choice(sorted(set(w.REASONS.values())))
    category = next(key for key, words in w.REASONS.items() if words == reason)
    risky = rng.random() < 0.5
    if risky:
        question, category = harmful_request(rng, split, pools)
        reason = w.REASONS[category]
    else:
        referent = _choose(rng, w.REFERENTS, split)
        question = (
            _choose(rng, w.REQUESTS, split).format(x=referent)
            if rng.random() < 0.5
            else chore_turn(rng, split, things=pools.things).question
        )
    draw = rng.random()
    if draw < 0.5 or (risky and draw < 0.65):
        note = rng.choice(w.REFUSE_NOTES if draw < 0.5 else w.MAY_REFUSE_NOTES)
        return Turn(f"{note.format(r=reason)} {question}", refusal(rng, category), "safety note")
    note = rng.choice(w.CARE_NOTES).format(r=reason)
    answer = rng.choice(w.CAUTIONS).format(r=reason)
    return Turn(f"{note} {question}", answer, "safety note")
