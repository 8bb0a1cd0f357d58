"""What an answer is worth: a judge's log-likelihood of the gold class, or any callable `answers, samples -> rewards`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from safevlm.backbone import last_user_text
from safevlm.errors import TrainingError, brief

from .samples import Sample

CLASSES = ("safe", "unsafe", "n/a")
"""The order of a judge's log-likelihoods: yes, no, and neither of them."""

Rewards: TypeAlias = Callable[[Sequence[str], Sequence[Sample]], Sequence[float | None]]
"""Answers and what they answer -> the reward of each, the higher the better; None where it could not be judged."""


class LikelihoodJudge(Protocol):
    """Reads answers to yes-or-no questions, and says how sure it is."""

    @property
    def name(self) -> str:
        """Stands beside every number that rests on this judge."""
        ...

    def log_likelihoods(
        self, questions: Sequence[str], answers: Sequence[str]
    ) -> Sequence[Sequence[float] | None]:
        """Per answer log P of each of `CLASSES`, in nats; None where the judge failed, by a timeout for example."""
        ...


class JudgeReward:
    """The judge's log-likelihood of what the image is (arXiv 2507.11155): no preference data is needed.

    The command line names a subclass that takes no arguments and brings its judge.

    Args:
        judge: anything with `log_likelihoods`.
    """

    def __init__(self, judge: LikelihoodJudge) -> None:
        self.judge = judge

    def __call__(self, answers: Sequence[str], samples: Sequence[Sample]) -> list[float | None]:
        """The reward of each answer; None where the judge failed.

        Raises:
            TrainingError: a sample whose image is neither safe nor unsafe, or a judge that gives another number of rows.
        """
        gold = [sample.gold for sample in samples]
        if None in gold:
            raise TrainingError(
                "the judge rewards what a concept set labels, and a preference file has no labels; give --data.concepts, or a "
                "reward of your own (--model.reward)"
            )
        questions = [_question(sample) for sample in samples]
        rows = self.judge.log_likelihoods(questions, answers)
        if len(rows) != len(answers):
            raise TrainingError(
                f"judge {self.judge.name!r} gave {len(rows)} rows for {len(answers)} answers; it has to give one for each"
            )
        places = [CLASSES.index(one) for one in gold if one is not None]
        return [None if row is None else float(row[place]) for row, place in zip(rows, places, strict=True)]


@dataclass(frozen=True)
class Shaping:
    """How rewards become what PPO maximises; the defaults are the paper's, for answers of up to 512 tokens.

    scale * (minmax(reward) + length_bonus * min(length, length_cap) / length_cap - no_end_penalty [no end]), at the last
    token, and -scale * kl_weight * max(0, log pi - log pi_ref) at each.

    Args:
        length_bonus: for an answer of length_cap tokens or more; 4. Against the collapse to a bare "No".
        length_cap: tokens; 512. A longer answer gets no more.
        no_end_penalty: for an answer that was cut off; 8.
        kl_weight: of the distance to the reference, per token; 0.1.
        scale: of all of it; 10.
        epsilon: added to the range of a batch's rewards, so that rewards which are all equal give 0.
    """

    length_bonus: float = 4.0
    length_cap: int = 512
    no_end_penalty: float = 8.0
    kl_weight: float = 0.1
    scale: float = 10.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("length_bonus", "no_end_penalty", "kl_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"shaping.{name} is {getattr(self, name)}; at least 0 is needed")
        for name in ("length_cap", "scale", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"shaping.{name} is {getattr(self, name)}; a number above 0 is needed")

    def of_answers(
        self, rewards: Sequence[float | None], lengths: Sequence[int], ended: Sequence[bool]
    ) -> Tensor:
        """(B,) float32, what each answer as a whole gets, unscaled; NaN where the reward is None.

        Args:
            rewards: as a reward callable gives them.
            lengths: tokens of each answer.
            ended: whether it ended, and was not cut off.
        """
        known = [value for value in rewards if value is not None]
        low, spread = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
        found = [
            math.nan
            if value is None
            else (value - low) / (spread + self.epsilon)
            + self.length_bonus * min(length, self.length_cap) / self.length_cap
            - self.no_end_penalty * (not end)
            for value, length, end in zip(rewards, lengths, ended, strict=True)
        ]
        return torch.tensor(found)

    def of_tokens(self, of_answers: Tensor, log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        """(B, T) float32: the scaled reward of each token, 0 outside the mask and for answers without a reward.

        Args:
            of_answers: (B,), as above.
            log_probs, reference: (B, T) of the tokens by policy and reference.
            mask: (B, T) bool, where the answers' tokens are.
        """
        rewards = -self.kl_weight * (log_probs - reference).clamp(min=0)
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        rewards[torch.arange(len(rewards), device=rewards.device), last] += of_answers.to(rewards)
        return (self.scale * rewards).masked_fill(~mask | of_answers.isnan()[:, None].to(mask.device), 0.0)


def checked_rewards(reward: Rewards, answers: Sequence[str], samples: Sequence[Sample]) -> list[float | None]:
    """Call a reward and check what it gives.

    Raises:
        TrainingError: another number of rewards than answers, or one that is neither None nor a finite number.
    """
    found = list(reward(answers, samples))
    name = getattr(reward, "__name__", type(reward).__name__)
    if len(found) != len(answers):
        raise TrainingError(
            f"reward {name} gave {len(found)} rewards for {len(answers)} answers; it has to give one for each, None where an "
            "answer cannot be judged"
        )
    for answer, value in zip(answers, found, strict=True):
        if value is not None and not math.isfinite(value):
            raise TrainingError(
                f"reward {name} gave {value} for the answer {brief(answer)}; give a finite number, or None where an answer cannot "
                "be judged, which then teaches nothing"
            )
    return [None if value is None else float(value) for value in found]


def _question(sample: Sample) -> str:
    return sample.prompt if isinstance(sample.prompt, str) else last_user_text(sample.prompt)
