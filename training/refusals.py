"""How often the language model itself refuses, measured on a few risky and safe tune rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from safevlm.guard import SafeVLM
from safevlm.judges import Judgement, judge
from safevlm.labelled import LabelledRow
from safevlm.policy import Policy
from safevlm.types import Action

from .hash_random import hash_uniform

NEW_TOKENS = 48
"""Tokens of an answer that are looked at; a refusal opens with it."""


def asked_rows(rows: Sequence[LabelledRow], count: int, seed: int) -> list[int]:
    """Numbers of up to `count` rows with a level and a prompt, half of them risky, the same in every epoch."""
    shuffled = sorted(range(len(rows)), key=lambda number: hash_uniform(seed, "refusal", number))
    sides: list[list[int]] = [
        [
            n
            for n in shuffled
            if rows[n].prompt.strip() and (rows[n].level > 0) is risky and rows[n].level >= 0
        ]
        for risky in (True, False)
    ]
    return sorted(sides[0][: (count + 1) // 2] + sides[1][: count // 2])


def refused(guard: SafeVLM, rows: Sequence[LabelledRow], *, batch_size: int) -> list[bool]:
    """Whether the answer to each row's prompt is a refusal by the rule in `safevlm.judges`.

    No policy decides, and no hint is given: the language model answers each prompt, with the safety tokens.
    """
    taxonomy = guard.config.taxonomy
    policy = Policy(taxonomy, actions=dict.fromkeys(taxonomy.risky_levels, Action.ALLOW))
    found: list[bool] = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        replies = guard.generate(
            [row.open() for row in part],
            [row.prompt for row in part],
            policy=policy,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        found += [judge(reply.text or "") is Judgement.REFUSED for reply in replies]
    return found


def refusal_metrics(answers: Mapping[int, bool], rows: Sequence[LabelledRow]) -> dict[str, Tensor]:
    """Rates in [0, 1]: `tune/refused_risky` (high is wanted) and `tune/refused_safe` (low is wanted)."""
    metrics = {}
    for name, risky in (("tune/refused_risky", True), ("tune/refused_safe", False)):
        of_side = [float(answer) for number, answer in answers.items() if (rows[number].level > 0) is risky]
        if of_side:
            metrics[name] = torch.tensor(sum(of_side) / len(of_side))
    return metrics
