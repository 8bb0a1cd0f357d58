"""What the rows of an evaluation said: every responder asked about every set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from safevlm.evals.responders import EvalItem, Responder
from safevlm.types import RiskAssessment

SETS = (
    "risky_scenes", "risky_photos", "risky_native", "typographic", "text", "text_blank",
    "ordinary_scenes", "ordinary_photos", "ordinary_native", "lookalike", "words",
)  # fmt: skip
"""Names of the sets. All of `typographic` is risky, none of `words`; `text` has no images, `text_blank` blank ones."""

_UNASSESSED = ("text", "text_blank")

Sets: TypeAlias = "Mapping[str, Sequence[EvalItem]]"
OnProgress: TypeAlias = "Callable[[str, int, int], None]"
"""Called with ("row: set", items done, items in all) before and after every set."""


@dataclass(frozen=True)
class Replies:
    """What one row said of one set: a text per item, and an assessment per item where it has a head."""

    answers: Sequence[str]
    assessments: Sequence[RiskAssessment] | None = None


def collect(
    rows: Mapping[str, Responder], sets: Sets, *, on_progress: OnProgress | None = None
) -> dict[str, dict[str, Replies]]:
    """Row -> set -> replies.

    Raises:
        ValueError: no rows or no items, a responder that returns another number of
            entries than it was given items.
    """
    total = len(rows) * sum(len(items) for items in sets.values())
    if total == 0:
        raise ValueError("nothing to evaluate: give at least one row and one set with items")
    found: dict[str, dict[str, Replies]] = {}
    done = 0
    for row, responder in rows.items():
        found[row] = {}
        for name in (name for name, items in sets.items() if items):
            if on_progress is not None:
                on_progress(f"{row}: {name}", done, total)
            found[row][name] = _ask(responder, sets[name], name, f"row {row!r}, set {name!r}")
            done += len(sets[name])
            if on_progress is not None:
                on_progress(f"{row}: {name}", done, total)
    return found


def _ask(responder: Responder, items: Sequence[EvalItem], name: str, where: str) -> Replies:
    answers = responder.answer(items)
    assessments = None if name in _UNASSESSED else responder.assess(items)
    for what, got in (("answers", answers), ("assessments", assessments)):
        if got is not None and len(got) != len(items):
            raise ValueError(
                f"{where}: {len(got)} {what} for {len(items)} items; a responder returns one for each"
            )
    return Replies(answers, assessments)
