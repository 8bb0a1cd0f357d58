"""Which hint stands before a row's prompt in stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from PIL import Image

from safevlm.policy import Policy
from safevlm.scorer import RiskScorer
from safevlm.viewing import ViewOutput

HintSource: TypeAlias = Literal["predicted", "labels", "none"]


def predicted_hints(
    scorer: RiskScorer, policy: Policy, head: ViewOutput | None, images: Sequence[Image.Image | None]
) -> list[str]:
    """Per row the hint that it gets at inference by what the head says of it now; empty where it calls the row safe.

    Args:
        scorer: has the calibration that the policy's threshold belongs to.
        policy: gives every risky level a hint.
        head: its output for the rows that have an image; None where no row has one.
        images: one per row, or None.
    """
    if head is None:
        return [""] * len(images)
    values = replace(
        head, level_logits=head.level_logits.detach(), category_logits=head.category_logits.detach()
    )
    found = iter(scorer.assess_output(values, policy=policy))
    return ["" if image is None else policy.decide(next(found)).hint for image in images]


def labelled_hint(policy: Policy, level: int, category: int) -> str:
    """The policy's hint for a risky row's labels (their numbers, -100 where unlabelled); empty for the others."""
    if level <= 0 or category < 0:
        return ""
    return policy.hint(policy.taxonomy.levels[level], policy.taxonomy.category_names[category])


def every_hint(policy: Policy) -> list[str]:
    """The hints of all risky levels and categories."""
    taxonomy = policy.taxonomy
    return [
        policy.hint(level, category)
        for level in taxonomy.risky_levels
        for category in taxonomy.risky_categories
    ]
