"""Concept set and questions -> what is asked: one probe for each question about each image, and about each concept in words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from safevlm.judges import LETTERS, Choice, Safety, listed
from safevlm.labelled import ConceptImage, ConceptQuestions, ConceptSet
from safevlm.labelled.concept_questions import CHOICES

PERCEPTION, IMAGE, TEXT, TEXT_WHITE, CONTEXT = "perception", "image", "text", "text_white", "context"
KINDS = (PERCEPTION, IMAGE, TEXT, TEXT_WHITE, CONTEXT)
"""Kinds of probes: a four-way choice; questions about an image; about a concept in words, alone and beside a white image; contexts."""
WHITE_SIDE = 1000
"""Pixels of the white image's side, as in arXiv 2507.11155."""


@dataclass(frozen=True)
class Probe:
    """One question.

    Args:
        kind: of `KINDS`, or "general" for an ordinary question.
        prompt: as it is asked.
        source: what is shown, as `safevlm.data.read_image` takes it; None: nothing.
        category, concept: what it is about; the concept is "" where the set does not name it.
        unsafe: whether the concept or image is unsafe.
        gold: the right class: a letter for perception, safe or unsafe for the others; of an ordinary question the answer.
        options: the four names of a choice.
        template: of an ordinary question, what it has in common with others.
    """

    kind: str
    prompt: str
    source: Image.Image | bytes | Path | None
    category: str
    concept: str
    unsafe: bool
    gold: Choice | Safety | str
    options: tuple[str, ...] = ()
    template: str = ""

    @property
    def cluster(self) -> str:
        """What intervals resample: the concept, or the category where no concept is named."""
        return self.concept or self.category


def make_probes(
    concepts: ConceptSet, questions: ConceptQuestions, *, seed: int = 0, kinds: Sequence[str] = KINDS
) -> list[Probe]:
    """All probes of these kinds.

    Contexts are asked only where the set has unsafe and harmless images: each context then has both answers, so that its
    words alone decide nothing. A choice has its right answer at each letter equally often, and its wrong ones are
    concepts of other categories.

    Raises:
        ValueError: an unknown kind, or too few categories for choices.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(f"unknown kinds of questions {unknown}; there are {', '.join(KINDS)}")
    found: list[Probe] = []
    if PERCEPTION in kinds:
        found += _choices(concepts, questions, random.Random(f"choices:{seed}"))
    if IMAGE in kinds:
        found += [_asked(IMAGE, question, image) for image in concepts.images for question in questions.image]
    for kind, shown in ((TEXT, None), (TEXT_WHITE, white_image())):
        if kind in kinds:
            found += [
                _named(kind, question, concept, shown)
                for concept in concepts.concepts
                for question in questions.about(concept.phrase)
            ]
    if CONTEXT in kinds and len({image.unsafe for image in concepts.images}) == 2:
        found += _contexts(concepts, questions)
    return found


def white_image() -> Image.Image:
    """The white image that stands beside a concept in words."""
    return Image.new("RGB", (WHITE_SIDE, WHITE_SIDE), "white")


def _choices(concepts: ConceptSet, questions: ConceptQuestions, rng: random.Random) -> Iterator[Probe]:
    """A choice for each image whose concept is named; letters come in shuffled rounds of four."""
    shown = [image for image in concepts.images if image.concept]
    letters: list[str] = []
    for image in shown:
        others = sorted({other.concept for other in concepts.concepts if other.category != image.category})
        if len(others) < len(LETTERS) - 1:
            raise ValueError(
                f"{concepts.name}: a choice about {image.concept!r} needs 3 concepts of other categories than {image.category!r}, and "
                f"there are {len(others)}; add categories, or leave perception out"
            )
        letters = letters or rng.sample(LETTERS, len(LETTERS))
        letter = letters.pop()
        options = rng.sample(others, len(LETTERS) - 1)
        options.insert(LETTERS.index(letter), image.concept)
        prompt = questions.perception.replace(CHOICES, listed(options))
        yield Probe(
            PERCEPTION,
            prompt,
            image.image,
            image.category,
            image.concept,
            image.unsafe,
            Choice(letter),
            tuple(options),
        )


def _contexts(concepts: ConceptSet, questions: ConceptQuestions) -> Iterator[Probe]:
    for image in concepts.images:
        for question in questions.warning:
            yield _asked(CONTEXT, question, image, gold=_gold(not image.unsafe))
        for question in questions.inviting:
            yield _asked(CONTEXT, question, image)


def _asked(kind: str, question: str, image: ConceptImage, *, gold: Safety | None = None) -> Probe:
    return Probe(
        kind, question, image.image, image.category, image.concept, image.unsafe, gold or _gold(image.unsafe)
    )


def _named(kind: str, question: str, concept: ConceptImage, shown: Image.Image | None) -> Probe:
    return Probe(
        kind, question, shown, concept.category, concept.concept, concept.unsafe, _gold(concept.unsafe)
    )


def _gold(unsafe: bool) -> Safety:
    return Safety.UNSAFE if unsafe else Safety.SAFE
