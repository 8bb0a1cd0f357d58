"""One example of alignment: a prompt with its images, and what a good and a bad answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..hash_random import hash_uniform
from .concepts import KeyedImage
from .gold import TEMPLATES, Gold, opposite

Prompt: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A text, which the images stand in front of, or messages with one image part for each."""


@dataclass(frozen=True)
class Sample:
    """One prompt.

    Args:
        images: encoded bytes or files, in the prompt's order.
        prompt: what is asked.
        chosen, rejected: a good and a bad answer.
        gold: what the image is; None for pairs of a preference file.
        concept, category: what the image shows; empty for pairs of a preference file.
        where: file and row, for messages.
    """

    images: tuple[bytes | Path, ...]
    prompt: Prompt
    chosen: str
    rejected: str
    gold: Gold | None = None
    concept: str = ""
    category: str = ""
    where: str = ""


def concept_sample(one: KeyedImage, questions: Sequence[str], *, key: Sequence[object]) -> Sample:
    """One of the questions about an image, with gold templates as answers; which ones is a hash of `key`."""
    question = questions[int(hash_uniform(*key, "question") * len(questions))]
    wordings = len(TEMPLATES[one.gold])
    good, bad = (int(hash_uniform(*key, side) * wordings) for side in ("chosen", "rejected"))
    return Sample(
        (one.image,),
        question,
        chosen=TEMPLATES[one.gold][good],
        rejected=TEMPLATES[opposite(one.gold)][bad],
        gold=one.gold,
        concept=one.concept,
        category=one.category,
        where=one.where,
    )
