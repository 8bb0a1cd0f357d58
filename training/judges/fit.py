"""Fits the trained judge: two linear heads on hashed features, by Adam with dropout and weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from safevlm.judges import AnswerJudge, Choice, Safety, marked, normalise
from safevlm.judges.trained import CHOICES, SAFETY, features

from .answers import Split, choice_answers, safety_answers

EPOCHS, BATCH, LEARNING_RATE = 8, 256, 0.05
DROPOUT, DECAY = 0.4, 1e-5
"""Share of the features that a step does not see, so that no single word decides; strength of the weight decay."""
LabelT = TypeVar("LabelT", Safety, Choice)

Confusion = dict[str, dict[str, int]]
"""True class -> class that was read -> answers."""


def fit_judge(n: int, seed: int) -> dict[str, Tensor]:
    """The judge's tensors, fitted on `n` answers of each kind of question, in float16: 213 kB as a file."""
    spoken, chosen = safety_answers("train", n, seed), choice_answers("train", n, seed)
    safety = _fit(
        [normalise(row.answer) for row in spoken], [SAFETY.index(row.label) for row in spoken], len(SAFETY)
    )
    choice = _fit(
        [marked(row.answer, row.options) for row in chosen],
        [CHOICES.index(row.label) for row in chosen],
        len(CHOICES),
    )
    tensors = zip(
        ("safety.weight", "safety.bias", "choice.weight", "choice.bias"), (*safety, *choice), strict=True
    )
    return {name: tensor.half() for name, tensor in tensors}


def confusions(judge: AnswerJudge, split: Split, n: int, seed: int) -> dict[str, Confusion]:
    """Kind of question ("safety", "choice") -> how a judge reads `n` answers of a split."""
    spoken, chosen = safety_answers(split, n, seed), choice_answers(split, n, seed)
    safety = judge.safety([""] * n, [row.answer for row in spoken])
    choice = judge.choice([row.options for row in chosen], [row.answer for row in chosen])
    return {
        "safety": _confusion(SAFETY, [row.label for row in spoken], [found.label for found in safety]),
        "choice": _confusion(CHOICES, [row.label for row in chosen], [found.label for found in choice]),
    }


def _confusion(classes: Sequence[LabelT], gold: Sequence[LabelT], found: Sequence[LabelT]) -> Confusion:
    pairs = list(zip(gold, found, strict=True))
    return {one.value: {other.value: pairs.count((one, other)) for other in classes} for one in classes}


def _fit(texts: Sequence[str], labels: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    inputs, wanted = features(texts), torch.tensor(labels)
    weight = torch.zeros(classes, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(inputs)).split(BATCH):
            logits = torch.nn.functional.dropout(inputs[rows], DROPOUT) @ weight.T + bias
            loss = torch.nn.functional.cross_entropy(logits, wanted[rows]) + DECAY * weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return weight.detach(), bias.detach()
