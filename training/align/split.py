"""What is trained on and what is held out: concepts, questions, or the images of each concept."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from safevlm.errors import DataError

from ..hash_random import hash_uniform
from .concepts import KeyedImage

HoldOut: TypeAlias = Literal["both", "concepts", "questions", "none"]
ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Split:
    """A concept set in two parts that share no image.

    Args:
        trained, held_out: images.
        questions: that are trained on.
        held_out_questions: the others.
    """

    trained: tuple[KeyedImage, ...]
    held_out: tuple[KeyedImage, ...]
    questions: tuple[str, ...]
    held_out_questions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Names of concepts (`category/concept`) and questions of either part, as plain values."""
        trained, held_out = (
            {f"{one.category}/{one.concept}" for one in part} for part in (self.trained, self.held_out)
        )
        return {
            "trained_concepts": sorted(trained),
            "held_out_concepts": sorted(held_out - trained),
            "trained_questions": list(self.questions),
            "held_out_questions": list(self.held_out_questions),
            "held_out_images": sorted(one.key for one in self.held_out),
        }


def split_concepts(
    images: Sequence[KeyedImage], questions: Sequence[str], *, hold_out: HoldOut, share: float, seed: int
) -> Split:
    """Split a concept set; the same arguments give the same split on every machine.

    With `concepts` or `both` whole concepts are held out, as many of the safe as of the unsafe side in proportion, spread over
    the categories; otherwise a share of each concept's images, as the paper does. An image that is in both parts is
    held out.

    Args:
        images: as `keyed_images` gives them.
        questions: all of them.
        hold_out: what is held out beside images.
        share: of concepts, questions or images, in [0, 1).
        seed: of what is chosen.

    Raises:
        DataError: no image of one side is left to train on, or nothing is left to hold out where it is asked for.
    """
    whole = hold_out in ("both", "concepts")
    _check_sides(images, "the concept set")
    groups = _grouped(
        images, (lambda one: (one.gold,)) if whole else (lambda one: (one.gold, one.category, one.concept))
    )
    units: Callable[[KeyedImage], str] = (
        (lambda one: f"{one.category}/{one.concept}") if whole else (lambda one: one.key)
    )
    chosen: set[tuple[Hashable, str]] = set()
    for group, members in groups.items():
        # by category first, so that every n-th of them spreads over the categories
        order = {
            (one.category if whole else "", hash_uniform(seed, "hold out", units(one))): units(one)
            for one in members
        }
        ordered = [order[key] for key in sorted(order)]
        chosen |= {(group, unit) for unit in _every_nth(ordered, share)}
        if whole and share and not any(kept[0] == group for kept in chosen):
            raise DataError(
                f"a share of {share} of {len(ordered)} {group[0]} concepts is none to hold out; give more concepts, a larger "
                "share (--data.held_out_share), or hold out images alone (--data.hold_out none)"
            )
    group_of = {id(one): group for group, members in groups.items() for one in members}
    held_out = [one for one in images if (group_of[id(one)], units(one)) in chosen]
    keys = {one.key for one in held_out}
    trained = [one for one in images if one.key not in keys]
    _check_sides(trained, "what is left to train on")
    asked, kept = _split_questions(questions, share if hold_out in ("both", "questions") else 0.0, seed)
    return Split(tuple(trained), tuple(held_out), asked, kept)


def balanced(images: Sequence[KeyedImage], *, seed: int) -> list[KeyedImage]:
    """Every unsafe image, and from the same source as many safe ones, those repeated in turn where they are fewer.

    Raises:
        DataError: a source with images of one side alone, which would tell the label.
    """
    rows: list[KeyedImage] = []
    for (source,), members in sorted(_grouped(images, lambda one: (one.source,)).items()):
        unsafe = [one for one in members if one.gold == "unsafe"]
        safe = sorted(
            (one for one in members if one.gold == "safe"),
            key=lambda one: hash_uniform(seed, "balance", one.key),
        )
        if not unsafe or not safe:
            raise DataError(
                f"source {source!r} has {len(unsafe)} unsafe and {len(safe)} safe images to train on, so that it would tell the "
                "label; give images of both sides from each source, or leave the column source out"
            )
        rows += unsafe + [safe[number % len(safe)] for number in range(len(unsafe))]
    return rows


def digest_text(split: Split, rows: Sequence[KeyedImage]) -> str:
    """All that decides what a run is trained on, as text to be hashed."""
    return json.dumps([split.to_dict(), [(one.key, one.gold) for one in rows]])


def _grouped(
    images: Sequence[KeyedImage], by: Callable[[KeyedImage], tuple[str, ...]]
) -> dict[tuple[str, ...], list[KeyedImage]]:
    groups: dict[tuple[str, ...], list[KeyedImage]] = defaultdict(list)
    for one in images:
        groups[by(one)].append(one)
    return groups


def _every_nth(items: Sequence[ItemT], share: float) -> list[ItemT]:
    """floor(share * n) of n items, evenly spread."""
    return [item for n, item in enumerate(items) if math.floor((n + 1) * share) > math.floor(n * share)]


def _split_questions(
    questions: Sequence[str], share: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not share:
        return tuple(questions), ()
    count = max(1, round(share * len(questions)))
    if count >= len(questions):
        raise DataError(
            f"of {len(questions)} questions {count} would be held out and none is left to train on; give more "
            "(--data.questions FILE), or hold out no questions (--data.hold_out concepts)"
        )
    kept = set(sorted(questions, key=lambda question: hash_uniform(seed, "question", question))[:count])
    return tuple(q for q in questions if q not in kept), tuple(q for q in questions if q in kept)


def _check_sides(images: Sequence[KeyedImage], what: str) -> None:
    counts = {gold: sum(one.gold == gold for one in images) for gold in ("unsafe", "safe")}
    if not all(counts.values()):
        raise DataError(
            f"{what} has {counts['unsafe']} unsafe and {counts['safe']} safe images; alignment needs both: a model that has "
            "seen one answer alone always gives it. Harmless concepts stand in the category safe (root/safe/<concept>/)"
        )
