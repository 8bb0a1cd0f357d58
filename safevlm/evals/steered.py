"""Rows of the evaluation of steering: a model under a method, or asked in other words. None of them has a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from safevlm.evals.responders import EvalItem, GuardResponder
from safevlm.steering import Method, ecso
from safevlm.types import RiskAssessment


@dataclass(frozen=True)
class SteeredResponder:
    """Answers of a model while methods act on it; none: the model as it is."""

    model: GuardResponder
    methods: Sequence[Method] = ()

    def answer(self, items: Sequence[EvalItem]) -> list[str]:
        """The answers' texts."""
        with ExitStack() as stack:
            for method in self.methods:
                stack.enter_context(self.model.guard.steered(method))
            return self.model.answer(items)

    def assess(self, items: Sequence[EvalItem]) -> list[RiskAssessment] | None:
        """None."""
        return None


@dataclass(frozen=True)
class WordedResponder:
    """Answers of a model whose prompts are worded anew, by `self_reminder` for example."""

    model: GuardResponder
    word: Callable[[str], str]

    def answer(self, items: Sequence[EvalItem]) -> list[str]:
        """The answers' texts."""
        return self.model.reply([item.image for item in items], [self.word(item.prompt) for item in items])

    def assess(self, items: Sequence[EvalItem]) -> list[RiskAssessment] | None:
        """None."""
        return None


@dataclass(frozen=True)
class EcsoResponder:
    """Answers that the model checks itself, and gives anew from a caption (`safevlm.steering.ecso`)."""

    model: GuardResponder

    def answer(self, items: Sequence[EvalItem]) -> list[str]:
        """The last answers' texts."""
        return ecso(self.model.reply, [item.image for item in items], [item.prompt for item in items])

    def assess(self, items: Sequence[EvalItem]) -> list[RiskAssessment] | None:
        """None."""
        return None
