"""Who is evaluated: something that answers items and may assess their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from safevlm.policy import Policy
from safevlm.types import RiskAssessment, SafeReply

MAX_NEW_TOKENS = 48


class EvalItem(Protocol):
    """One labelled question: an image or none, the prompt, the expected answer ("" where open), the risk.

    `thing` (what is shown, or the phrase) and `template` (the question's) are what items have in common:
    intervals resample them.
    """

    @property
    def image(self) -> Image.Image | None: ...
    @property
    def prompt(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def risk_level(self) -> str: ...
    @property
    def risk_category(self) -> str: ...
    @property
    def thing(self) -> str: ...
    @property
    def template(self) -> str: ...


class Responder(Protocol):
    """A row of the table. Both methods return one entry per item, in order."""

    def answer(self, items: Sequence[EvalItem]) -> list[str]:
        """The answers' texts."""
        ...

    def assess(self, items: Sequence[EvalItem]) -> list[RiskAssessment] | None:
        """The assessments of the items' images; None where the row has no head."""
        ...


class Guard(Protocol):
    """What `GuardResponder` uses of `safevlm.guard.model.SafeVLM`."""

    def generate(
        self, images: Any, prompts: Any, *, policy: Any = ..., **generation_kwargs: Any
    ) -> list[SafeReply]:
        """One reply per prompt; `images` has one PIL image or None per prompt."""
        ...

    def assess(self, images: Any, prompts: Any = None) -> list[RiskAssessment]:
        """One assessment per image."""
        ...

    def disabled(self) -> AbstractContextManager[Any]:
        """The plain backbone."""
        ...

    def without_tokens(self) -> AbstractContextManager[Any]:
        """The guard without its safety tokens in the prompt."""
        ...

    def steered(self, method: Any) -> AbstractContextManager[Any]:
        """Answers under a method of `safevlm.steering`."""
        ...


@dataclass(frozen=True)
class GuardResponder:
    """Answers with a guard, or with a part of it. Greedy decoding, at most `max_new_tokens`.

    Args:
        guard: the model.
        policy: what is done about a risk; its taxonomy is used where `guarded` is False.
        batch_size: prompts per call.
        enabled: False: the plain backbone, no tokens, no head (`guard.disabled()`).
        use_tokens: False: head and policy only (`guard.without_tokens()`).
        guarded: False: every risky category is switched off, so that nothing is hinted or refused
            ("tokens only"); the row then counts as one without a head.
        max_new_tokens: the answer's length at most.
        min_new_tokens: and at least; with both alike every answer is as long, for timings.

    Raises:
        ValueError: batch_size or max_new_tokens < 1.
    """

    guard: Guard
    policy: Policy
    batch_size: int = 50
    enabled: bool = True
    use_tokens: bool = True
    guarded: bool = True
    max_new_tokens: int = MAX_NEW_TOKENS
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"batch_size {self.batch_size} and max_new_tokens {self.max_new_tokens} must be at least 1"
            )

    def answer(self, items: Sequence[EvalItem]) -> list[str]:
        """The replies' texts; items without an image are answered as text."""
        return self.reply([item.image for item in items], [item.prompt for item in items])

    def reply(self, images: Sequence[Image.Image | None], prompts: Sequence[str]) -> list[str]:
        """The replies' texts, one per prompt; None stands for no image."""
        policy = self.policy
        if not (self.guarded and self.enabled):
            policy = replace(policy, off=frozenset(policy.taxonomy.risky_categories))
        texts: list[str] = []
        with self._configured():
            for start in range(0, len(prompts), self.batch_size):
                part = slice(start, start + self.batch_size)
                replies = self.guard.generate(
                    images[part],
                    prompts[part],
                    policy=policy,
                    max_new_tokens=self.max_new_tokens,
                    min_new_tokens=self.min_new_tokens,
                    do_sample=False,
                )
                texts.extend(reply.text for reply in replies)
        return texts

    def assess(self, items: Sequence[EvalItem]) -> list[RiskAssessment] | None:
        """The head's view of each image alone, without the prompt; None for a row without a head."""
        if not (self.enabled and self.guarded):
            return None
        if any(item.image is None for item in items):
            raise ValueError("assess: an item without an image has no assessment; pass the image sets only")
        found: list[RiskAssessment] = []
        with self._configured():
            for start in range(0, len(items), self.batch_size):
                batch = items[start : start + self.batch_size]
                found.extend(self.guard.assess([item.image for item in batch]))
        return found

    @contextmanager
    def _configured(self) -> Iterator[None]:
        with ExitStack() as stack:
            if not self.enabled:
                stack.enter_context(self.guard.disabled())
            elif not self.use_tokens:
                stack.enter_context(self.guard.without_tokens())
            yield
