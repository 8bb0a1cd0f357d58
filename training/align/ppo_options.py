"""Options of PPO; the defaults are those of arXiv 2507.11155."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ppo:
    """How answers are sampled, and how the policy is moved by them.

    Args:
        advantages: "gae" with a value head, or "group" (GRPO): an answer against the others to the same prompt, without one.
        answers_per_prompt: sampled answers of each prompt; 1, and 2 or more for "group".
        max_new_tokens: of an answer; 512.
        temperature: of sampling, above 0; 1.
        inner_epochs: optimizer steps on the same answers; 1.
        micro_batch: answers in the model at a time; changes memory and speed, and which answers chance draws.
        clip: of the probability ratio, above 0; 0.2.
        value_clip: of a value's change, above 0; 0.2.
        value_weight: of the value loss; 0.1.
        value_lora: "separate": the value head reads the LLM with LoRA layers of its own; "shared": with the policy's.
        entropy_weight: of the entropy bonus; 0.02.
        gamma, lam: of GAE, in [0, 1]; 1 and 1.
        grad_norm: gradients are clipped to it; 1.
        inner_kl: inner epochs end where mean(log pi_old - log pi), in nats per token, exceeds it; null: never.
        stop_kl: the run ends, and writes its weights, where a batch's mean(log pi - log pi_ref), in nats per token, exceeds it;
            null: never.
        shown_answers: answers of each batch that are written to <output_dir>.run/answers.jsonl.
    """

    advantages: Literal["gae", "group"] = "gae"
    answers_per_prompt: int = 1
    max_new_tokens: int = 512
    temperature: float = 1.0
    inner_epochs: int = 1
    micro_batch: int = 8
    clip: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    value_lora: Literal["separate", "shared"] = "separate"
    entropy_weight: float = 0.02
    gamma: float = 1.0
    lam: float = 1.0
    grad_norm: float = 1.0
    inner_kl: float | None = None
    stop_kl: float | None = None
    shown_answers: int = 2

    def __post_init__(self) -> None:
        for name in ("answers_per_prompt", "max_new_tokens", "inner_epochs", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("temperature", "clip", "value_clip", "grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; a number above 0 is needed")
        for name in ("value_weight", "entropy_weight", "shown_answers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; at least 0 is needed")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"ppo.{name} is {getattr(self, name)}; a number in [0, 1] is needed")
        if self.advantages == "group" and self.answers_per_prompt < 2:
            raise ValueError(
                "ppo.advantages group compares the answers to one prompt, and ppo.answers_per_prompt is 1; give 2 or more, 8 for "
                "example"
            )
