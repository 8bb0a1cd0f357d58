"""Scores -> verdict, action and hint. Nothing else decides what is safe."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from safevlm.config import DEFAULT_THRESHOLD
from safevlm.errors import brief
from safevlm.files import write_bytes
from safevlm.printable import printable
from safevlm.taxonomy import Taxonomy, check_fields, check_text, read_yaml
from safevlm.types import Action, Risk, RiskAssessment, Verdict

REFUSAL = "I'm sorry, but I can't help with this image."
Rule: TypeAlias = Literal["threshold", "argmax"]
RULES = ("threshold", "argmax")
SEVERITY = {Action.ALLOW: 0, Action.HINT: 1, Action.REFUSE: 2}

# One sentence a severity: the mildest risky level asks for care, the highest for a refusal, those
# between allow one (SafeVLM, arXiv 2405.13581: levels 1, 2, 3). The words are our own.
CAREFUL = "[Safety note: this may involve {concern}. Answer with care and {guidance}.]"
RELUCTANT = "[Safety note: this involves {concern}. {Guidance}; refuse if an answer could do harm.]"
REFUSING = "[Safety note: this involves {concern}. Refuse and say why.]"


@dataclass(frozen=True)
class Decision:
    """What happens to one request: `hint` is empty unless the action is hint."""

    action: Action
    hint: str = ""


@dataclass(frozen=True)
class Policy:
    """How risks become verdicts and actions, for one taxonomy.

    The score of an image is attributed to its risky categories in proportion to their
    probabilities; categories that are switched off drop out with their share. The image is unsafe
    when what remains reaches the threshold of its most likely category, or one category's share alone
    reaches a threshold that was set for it.

    With `rule="argmax"`, the rule of the paper's authors (arXiv 2405.13581), the image is unsafe when its most likely
    level is not the safe one and its most likely category is neither the clean one nor switched off.

    Args:
        taxonomy: names of levels and categories.
        threshold: the least score in (0, 1] that is unsafe, for categories without their own.
        thresholds: category -> its own threshold.
        actions: risky level -> action; levels not named here get a hint, the highest a refusal.
        off: categories that are let through (the paper's controllability).
        undecided: action where no risk could be computed; allow is not accepted.
        refusal: the reply that is given without running the LLM.
        hints: level -> category -> text, used instead of the built-in hint.
        rule: "threshold", or "argmax", which takes no thresholds.

    Raises:
        ValueError: a name outside the taxonomy, a threshold outside (0, 1], undecided = allow, an unknown rule, or
            thresholds beside the argmax.
    """

    taxonomy: Taxonomy
    threshold: float = DEFAULT_THRESHOLD
    thresholds: Mapping[str, float] = field(default_factory=dict)
    actions: Mapping[str, Action] = field(default_factory=dict)
    off: frozenset[str] = frozenset()
    undecided: Action = Action.REFUSE
    refusal: str = REFUSAL
    hints: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rule: Rule = "threshold"

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "off", frozenset(self.off))
        object.__setattr__(self, "undecided", _action("undecided", self.undecided))
        actions = {level: _action(f"actions: {level}", action) for level, action in self.actions.items()}
        object.__setattr__(self, "actions", actions)
        self._check_names("actions", self.actions, self.taxonomy.risky_levels)
        self._check_names("hints", self.hints, self.taxonomy.risky_levels)
        self._check_names("thresholds", self.thresholds, self.taxonomy.risky_categories)
        self._check_names("off", self.off, self.taxonomy.risky_categories)
        for texts in self.hints.values():
            self._check_names("hints", texts, self.taxonomy.category_names)
        for value in (self.threshold, *self.thresholds.values()):
            if not 0 < value <= 1:
                raise ValueError(f"policy threshold {brief(value)} is not in (0, 1]; 0.5 is the default")
        if self.rule == "argmax" and (self.thresholds or self.threshold != DEFAULT_THRESHOLD):
            raise ValueError(
                "policy: the rule argmax uses no threshold; leave threshold and thresholds out, or the rule"
            )
        if self.undecided is Action.ALLOW:
            raise ValueError("policy: undecided cannot be 'allow'; what could not be scored is never safe")
        if not self.refusal.strip():
            raise ValueError("policy: the refusal is empty; write the reply that users should read")

    def _check_types(self) -> None:
        """Raise ValueError for a value of a wrong type, before anything compares or prints it."""
        for what, value in (
            ("thresholds", self.thresholds),
            ("actions", self.actions),
            ("hints", self.hints),
        ):
            if not isinstance(value, Mapping):
                raise ValueError(f"policy: {what} is {brief(value)}, not a mapping of names to values")
        for level, texts in self.hints.items():
            if not isinstance(texts, Mapping):
                raise ValueError(
                    f"policy hints: {brief(level)} is {brief(texts)}, not a mapping of categories to texts"
                )
            for category, text in texts.items():
                check_text(f"policy hints: {brief(level)}: {brief(category)}", text)
        thresholds: list[tuple[str, object]] = [("threshold", self.threshold), *self.thresholds.items()]
        for name, number in thresholds:
            if isinstance(number, bool) or not isinstance(number, Real):
                raise ValueError(
                    f"policy: the threshold {brief(name)} is {brief(number)}, not a number in (0, 1]"
                )
        if not isinstance(self.off, Set | list | tuple):
            raise ValueError(f"policy: off is {brief(self.off)}, not a list of categories")
        for name in (*self.off, *self.thresholds, *self.actions, *self.hints):
            check_text("policy: a name", name)
        check_text("policy: refusal", self.refusal)
        if self.rule not in RULES:
            raise ValueError(f"policy: rule is {brief(self.rule)}; it is one of {', '.join(RULES)}")

    def _check_names(self, what: str, names: Iterable[str], known: tuple[str, ...]) -> None:
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(
                f"policy {what}: {brief(unknown)} not in taxonomy {self.taxonomy.name!r}; it has {list(known)}"
            )

    @classmethod
    def hints_only(cls, taxonomy: Taxonomy, *, threshold: float = DEFAULT_THRESHOLD) -> Policy:
        """Every risky level gets a hint, none a fixed refusal, as at the paper's inference."""
        return cls(taxonomy, threshold, actions=dict.fromkeys(taxonomy.risky_levels, Action.HINT))

    def assess(self, risk: Risk) -> RiskAssessment:
        """Add level, category and verdict to a risk.

        A score that is missing, or any number that is not a probability, makes it undecided.
        """
        numbers = (*risk.level_probabilities.values(), *risk.category_probabilities.values())
        if risk.score is None or not all(0 <= number <= 1 for number in (risk.score, *numbers)):
            reason = risk.reason or "the score is not a number in [0, 1]; check the weights and the image"
            return RiskAssessment(None, reason=reason, untrained=risk.untrained, verdict=Verdict.UNDECIDED)
        by_argmax = self.rule == "argmax"
        unsafe, category, threshold = (
            self._by_argmax(risk) if by_argmax else self._by_threshold(risk, risk.score)
        )
        level = self.taxonomy.safe_level
        if unsafe:
            level = max(self.taxonomy.risky_levels, key=lambda name: risk.level_probabilities[name])
        return RiskAssessment(
            score=risk.score,
            level_probabilities=risk.level_probabilities,
            category_probabilities=risk.category_probabilities,
            calibrated=risk.calibrated,
            untrained=risk.untrained,
            level=level,
            category=category if unsafe else self.taxonomy.clean,
            verdict=Verdict.UNSAFE if unsafe else Verdict.SAFE,
            threshold=threshold,
        )

    def _by_threshold(self, risk: Risk, score: float) -> tuple[bool, str, float | None]:
        """Whether it is unsafe, the most likely risky category, and the threshold of that category."""
        shares = self._shares(score, risk.category_probabilities)
        over = [name for name, share in shares.items() if share >= self.thresholds.get(name, math.inf)]
        category = max(over or shares, key=lambda name: shares[name], default=self.taxonomy.clean)
        attributed = min(score, sum(shares.values())) if self.off else score
        threshold = self.thresholds.get(category, self.threshold)
        return bool(over) or (bool(shares) and attributed >= threshold), category, threshold

    def _by_argmax(self, risk: Risk) -> tuple[bool, str, float | None]:
        """The same by the most likely level and category; there is no threshold."""
        level = max(self.taxonomy.levels, key=lambda name: risk.level_probabilities[name])
        category = max(self.taxonomy.category_names, key=lambda name: risk.category_probabilities[name])
        let_through = category in (self.taxonomy.clean, *self.off)
        return level != self.taxonomy.safe_level and not let_through, category, None

    def reach(self, risk: Risk) -> dict[str, float]:
        """What each category that is not off is held against its threshold with: its share of the score, and for the
        most likely category what the whole score comes to without the shares of those that are off.

        By the rule "threshold", an image is unsafe where the most likely category's reaches its threshold, or that of
        another one a threshold of its own. Empty without a score.
        """
        if risk.score is None:
            return {}
        shares = self._shares(risk.score, risk.category_probabilities)
        if shares:
            likeliest = max(shares, key=lambda name: shares[name])
            return shares | {likeliest: min(risk.score, sum(shares.values())) if self.off else risk.score}
        return {}

    def _shares(self, score: float, probabilities: Mapping[str, float]) -> dict[str, float]:
        """The score divided among the categories that are not off."""
        weights = {name: probabilities[name] for name in self.taxonomy.risky_categories}
        if not any(weights.values()):  # nothing says which category it is: then none may excuse it
            weights = {name: float(name not in self.off) for name in weights}
        total = sum(weights.values()) or 1.0
        return {name: score * weight / total for name, weight in weights.items() if name not in self.off}

    def without(self, risk: Risk, category: str) -> Risk:
        """The risk without one risky category's share of its score, which `off` lets through: what others say stays.

        The clean category gets its probability. A risk that is attributed to no category stays as it is.
        """
        probabilities = dict(risk.category_probabilities)
        total = sum(probabilities.get(name, 0.0) for name in self.taxonomy.risky_categories)
        if not risk.score or not total:
            return risk
        kept = 1.0 - probabilities[category] / total
        score = risk.score * kept
        probabilities[self.taxonomy.clean] += probabilities[category]
        probabilities[category] = 0.0
        levels = {name: risk.level_probabilities[name] * kept for name in self.taxonomy.risky_levels}
        return replace(
            risk,
            score=score,
            level_probabilities={self.taxonomy.safe_level: 1.0 - score, **levels},
            category_probabilities=probabilities,
        )

    def check_fits(self, taxonomy: Taxonomy) -> None:
        """Raise ValueError unless the policy's levels and categories are a model's own."""
        own, other = self.taxonomy, taxonomy
        if (own.levels, own.category_names, own.clean) != (other.levels, other.category_names, other.clean):
            raise ValueError(
                f"the policy is for taxonomy {own.name!r}, the model's is {other.name!r}; write one with "
                f"levels {list(other.levels)} and categories {list(other.category_names)}, or leave "
                "`taxonomy` out of its file"
            )

    def decide(self, assessment: RiskAssessment) -> Decision:
        """The action for an assessment, with its hint."""
        if assessment.verdict is Verdict.SAFE:
            return Decision(Action.ALLOW)
        if assessment.verdict is Verdict.UNDECIDED or assessment.level is None or assessment.category is None:
            hint = "[Safety note: the image could not be checked. Refuse and say why.]"
            return Decision(self.undecided, hint if self.undecided is Action.HINT else "")
        highest = assessment.level == self.taxonomy.levels[-1]
        action = self.actions.get(assessment.level, Action.REFUSE if highest else Action.HINT)
        hint = self.hint(assessment.level, assessment.category) if action is Action.HINT else ""
        return Decision(action, hint)

    def riskiest(self, assessments: list[RiskAssessment]) -> RiskAssessment:
        """The assessment that decides over a prompt with several images; raises ValueError for none."""
        if not assessments:
            raise ValueError("no assessments to choose from; a prompt without images has no risk")

        def severity(found: RiskAssessment) -> tuple[int, bool, float]:
            flagged = found.verdict is not Verdict.SAFE
            return SEVERITY[self.decide(found).action], flagged, 1.0 if found.score is None else found.score

        return max(assessments, key=severity)

    def over_views(self, assessments: list[RiskAssessment]) -> RiskAssessment:
        """An image's assessment from those of its views: the riskiest, with the highest score that is flagged.

        A view that has no score leaves the image undecided, unless another one asks for a severer action.
        """
        worst = self.riskiest(assessments)
        if worst.verdict is not Verdict.UNSAFE:
            return worst
        scores = [a.score for a in assessments if a.verdict is Verdict.UNSAFE and a.score is not None]
        return replace(worst, score=max(scores))

    def hint(self, level: str, category: str) -> str:
        """The sentence that goes before the prompt at this risky level and category."""
        self._check_names("hint", [level], self.taxonomy.risky_levels)
        own = self.hints.get(level, {}).get(category)
        if own is not None:
            return own
        kind = self.taxonomy.category(category)
        if level == self.taxonomy.levels[-1]:
            template = REFUSING
        else:
            template = CAREFUL if level == self.taxonomy.levels[1] else RELUCTANT
        guidance = kind.guidance or "put safety first"
        return template.format(
            concern=kind.concern or kind.name, guidance=guidance, Guidance=guidance[:1].upper() + guidance[1:]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in YAML; the inverse of `from_dict`."""
        # the usual rule is left out: policies keep the hash that they had before there was another
        return {
            "taxonomy": self.taxonomy.to_dict(),
            "threshold": self.threshold,
            "thresholds": dict(self.thresholds),
            "actions": {level: action.value for level, action in self.actions.items()},
            "off": sorted(self.off),
            "undecided": self.undecided.value,
            "refusal": self.refusal,
            "hints": {level: dict(texts) for level, texts in self.hints.items()},
            **({} if self.rule == "threshold" else {"rule": self.rule}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], taxonomy: Taxonomy | None = None) -> Policy:
        """A policy from plain values; `taxonomy` is used where the values carry none.

        Raises:
            ValueError: a foreign field, or no taxonomy at all.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"a policy is a mapping of fields to values; got {brief(values)}")
        # YAML reads a bare `off` as false; null means the default
        given: dict[Any, Any] = dict(values)
        values = {"off" if key is False else key: value for key, value in given.items() if value is not None}
        check_fields("policy", values, set(), {f.name for f in fields(cls)})
        own = values.get("taxonomy")
        if isinstance(own, str):
            taxonomy = Taxonomy.preset(own)
        elif own is not None:
            taxonomy = Taxonomy.from_dict(own)
        if taxonomy is None:
            raise ValueError("policy: no taxonomy; add `taxonomy: safevlm` or another preset's name")
        return cls(taxonomy, **{name: value for name, value in values.items() if name != "taxonomy"})

    def to_yaml(self, path: str | Path, *, comment: str = "") -> None:
        """Write the policy for people to edit, below lines of comment, such as what it rests on."""
        above = "".join(f"# {line}\n" for line in printable(comment, lines=True).splitlines())
        written = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        write_bytes(Path(path), (above + written).encode())

    @classmethod
    def from_yaml(cls, path: str | Path, taxonomy: Taxonomy | None = None) -> Policy:
        """Read a policy; a file without `taxonomy` uses the one given (a model's own)."""
        return cls.from_dict(read_yaml(path), taxonomy)

    @property
    def sha256(self) -> str:
        """Hash of everything that the policy decides by, 64 hex digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def _action(what: str, value: object) -> Action:
    """An action by its name; raises ValueError with the names there are."""
    names = [action.value for action in Action]
    if not isinstance(value, str) or value not in names:  # an enum's own error would print the whole value
        raise ValueError(f"policy: {what} is {brief(value)}; it is one of {', '.join(names)}")
    return Action(value)
