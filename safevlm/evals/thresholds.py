"""Scores and labels -> the policy that reaches a recall, or that flags at most a share of the safe images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import torch

from safevlm.calibration import fewest_items, greatest_threshold, least_threshold
from safevlm.errors import DataError
from safevlm.estimate import Estimate, proportion
from safevlm.evals.scored import ScoredImage
from safevlm.policy import Policy
from safevlm.types import Verdict

Kind: TypeAlias = Literal["recall", "false_positives"]


@dataclass(frozen=True)
class Target:
    """What thresholds are chosen for: at least this recall, or at most this false-positive rate, in (0, 1)."""

    kind: Kind
    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            name = self.kind.replace("_", "-")
            raise ValueError(f"--{name} is {self.rate}; a share between 0 and 1 is needed, such as 0.05")

    @property
    def fewest(self) -> int:
        """Images that are needed to see the rate of errors (see `fewest_items`)."""
        return fewest_items(1 - self.rate if self.kind == "recall" else self.rate)

    @property
    def text(self) -> str:
        """In words."""
        share = f"{100 * self.rate:g} %"
        return f"at least {share} recall" if self.kind == "recall" else f"at most {share} false positives"

    def met(self, recall: Estimate | None, false_positives: Estimate | None) -> bool:
        """Whether a policy does it."""
        if self.kind == "recall":
            return recall is not None and recall.value >= self.rate - 1e-9
        return false_positives is not None and false_positives.value <= self.rate + 1e-9


@dataclass(frozen=True)
class Chosen:
    """A threshold.

    Args:
        threshold: the least score that is unsafe.
        n: images that it was chosen on: risky ones for a recall, safe ones for a false-positive rate.
        recall: flagged, of the risky images (of the category).
        false_positives: flagged (as the category), of all safe images.
    """

    threshold: float
    n: int
    recall: Estimate | None
    false_positives: Estimate | None


@dataclass(frozen=True)
class Choice:
    """The chosen policy, and what it does on the images that it was chosen on.

    Args:
        policy: with the thresholds.
        target: what it was chosen for.
        whole: the threshold for all categories without their own, measured with the whole policy.
        categories: category -> its own threshold.
        left: category -> images that it has, where they are too few for a threshold of its own.
    """

    policy: Policy
    target: Target
    whole: Chosen
    categories: Mapping[str, Chosen]
    left: Mapping[str, int]

    @property
    def text(self) -> str:
        """What the policy was chosen for and does, in words, a line each."""
        lines = [f"chosen for {self.target.text}; on the same images:"]
        for name, one in {"all others" if self.categories else "all": self.whole, **self.categories}.items():
            recall, alarms = _told(one.recall), _told(one.false_positives)
            lines.append(
                f"{name}: threshold {one.threshold:.4g}, n {one.n}, recall {recall}, false positives {alarms}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "target": asdict(self.target),
            "all": asdict(self.whole),
            "categories": {name: asdict(one) for name, one in self.categories.items()},
            "too_few_images": dict(self.left),
        }


def _told(cell: Estimate | None) -> str:
    if cell is None:
        return "-"
    return f"{100 * cell.value:.1f} % [{100 * cell.low:.1f}, {100 * cell.high:.1f}] of {cell.n}"


def choose_thresholds(
    images: Sequence[ScoredImage], policy: Policy, target: Target, *, per_category: bool = False
) -> Choice:
    """Choose the thresholds of a policy on labelled images; the rest of it stays.

    For a recall each threshold is the greatest that reaches it, undecided images counted as missed; per category, of
    the risky images that are labelled so. For a false-positive rate it is the least one that flags no more of the safe
    images; per category, of those whose most likely category it is, so that the rate holds for all of them together.

    Args:
        images: scored; the policy's verdicts on them play no part.
        policy: whose rule is "threshold".
        target: what the policy must do.
        per_category: whether categories get thresholds of their own where the data have enough images of them.

    Raises:
        DataError: too few images, or no threshold does it.
        ValueError: the policy's rule has no threshold.
    """
    if policy.rule != "threshold":
        raise ValueError(f"the policy's rule is {policy.rule}, which has no threshold; leave the rule out")
    reaches = _Reaches(images, replace(policy, thresholds={}))
    names = [name for name in policy.taxonomy.risky_categories if name not in policy.off]
    one_of = _CHOICES[target.kind]
    own: dict[str, tuple[float, int]] = {}
    left: dict[str, int] = {}
    for name in names if per_category else ():
        found, n = one_of(reaches, target, name, ())
        if found is None or n < target.fewest:
            left[name] = n
        else:
            own[name] = found, n
    threshold, n = _for_the_rest(reaches, target, own)
    chosen = replace(policy, threshold=threshold, thresholds={name: t for name, (t, _) in own.items()})
    choice = _measured(images, chosen, target, n, own, left)
    if not target.met(choice.whole.recall, choice.whole.false_positives):
        raise DataError(
            f"thresholds per category have {_told(choice.whole.recall)} recall and "
            f"{_told(choice.whole.false_positives)} false positives together, not {target.text}; choose one threshold "
            "for all categories"
        )
    return choice


class _Reaches:
    """What every image is held against thresholds with (`Policy.reach`), by category.

    Args:
        images: those without a score reach nothing.
        policy: its thresholds play no part.
    """

    def __init__(self, images: Sequence[ScoredImage], policy: Policy) -> None:
        self.images = images
        self._reach = [policy.reach(one.found) for one in images]
        self.top = [max(reach, key=lambda name: reach[name], default="") for reach in self._reach]

    def of(self, numbers: Sequence[int], name: str) -> torch.Tensor:
        """(n,) float64 for a category, or the highest of all for ""; images without a score have 0."""
        values = (self._reach[n] for n in numbers)
        found = [reach.get(name, 0.0) if name else max(reach.values(), default=0.0) for reach in values]
        return torch.tensor(found, dtype=torch.float64)

    def all(self, name: str) -> torch.Tensor:
        """`of` every image."""
        return self.of(range(len(self.images)), name)


def _by_recall(
    reaches: _Reaches, target: Target, name: str, owned: Sequence[str]
) -> tuple[float | None, int]:
    """The greatest threshold of a category, or for the rest, that reaches the recall of its images, and their number."""
    numbers = [
        n
        for n, one in enumerate(reaches.images)
        if one.risky and (one.category == name if name else one.category not in owned)
    ]
    if not numbers:
        return None, 0
    needed = math.ceil(round(target.rate * len(numbers), 6))
    return greatest_threshold(reaches.of(numbers, name), reaches.all(name), needed=needed), len(numbers)


def _by_false_positives(
    reaches: _Reaches, target: Target, name: str, owned: Sequence[str]
) -> tuple[float | None, int]:
    """The least threshold of a category, or for the rest, that keeps the rate of the safe images that look like it."""
    safe = [n for n, one in enumerate(reaches.images) if not one.risky and one.found.score is not None]
    mine = [n for n in safe if (reaches.top[n] == name if name else reaches.top[n] not in owned)]
    if not mine:
        return None, 0
    allowed = math.floor(round(target.rate * len(mine), 6))
    # a share may reach the category's own threshold where another category is likelier
    counted = safe if name else mine
    return least_threshold(reaches.of(counted, name), reaches.all(name), allowed=allowed), len(mine)


_CHOICES = {"recall": _by_recall, "false_positives": _by_false_positives}


def _for_the_rest(
    reaches: _Reaches, target: Target, own: Mapping[str, tuple[float, int]]
) -> tuple[float, int]:
    """The threshold of all categories without their own: the stricter one of that for all images and for theirs."""
    by = _CHOICES[target.kind]
    found, n = by(reaches, target, "", ())
    if n < target.fewest:
        kind = "risky" if target.kind == "recall" else "safe"
        raise DataError(
            f"{n} {kind} images with a score are too few for {target.text}: at least {target.fewest} are needed to see "
            "such a rate; label more, or ask for less"
        )
    if found is None:
        raise DataError(
            f"no threshold has {target.text}: too many scores are {'0' if target.kind == 'recall' else '1'}, or missing"
        )
    rest, count = by(reaches, target, "", list(own))
    if not own or rest is None:
        return found, n
    return (min(found, rest) if target.kind == "recall" else max(found, rest)), count


def _measured(
    images: Sequence[ScoredImage],
    policy: Policy,
    target: Target,
    n: int,
    own: Mapping[str, tuple[float, int]],
    left: Mapping[str, int],
) -> Choice:
    """What the policy does on the images, counted with its own verdicts."""
    found = [(one, policy.assess(one.found)) for one in images]
    risky = [(one, a.verdict is Verdict.UNSAFE) for one, a in found if one.risky]
    safe = [(a.category, a.verdict is Verdict.UNSAFE) for one, a in found if not one.risky]
    categories = {
        name: Chosen(
            threshold,
            count,
            _rate([flagged for one, flagged in risky if one.category == name]),
            _rate([flagged and category == name for category, flagged in safe]),
        )
        for name, (threshold, count) in own.items()
    }
    whole = Chosen(
        policy.threshold, n, _rate([flagged for _, flagged in risky]), _rate([flagged for _, flagged in safe])
    )
    return Choice(policy, target, whole, categories, left)


def _rate(flagged: Sequence[bool]) -> Estimate | None:
    return proportion(sum(flagged), len(flagged)) if flagged else None
