"""Scored images made by hand, with the probabilities that a scorer would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safevlm import Policy, Taxonomy
from safevlm.evals.scored import ScoredImage
from safevlm.types import Risk

TAXONOMY = Taxonomy.preset("safevlm")
POLICY = Policy(TAXONOMY)


def scored(
    score: float | None,
    *,
    category: str = "",
    likeliest: str = "illegal",
    name: str = "x.png",
    image: bytes = b"",
    prompt: str = "",
    policy: Policy = POLICY,
) -> ScoredImage:
    """An image whose risk is `likeliest` by four fifths; risky where it has a category."""
    risk = Risk(None, reason="broken") if score is None else risk_of(score, likeliest)
    return ScoredImage(name, image, prompt, 3 if category else 0, category, policy.assess(risk))


def risk_of(score: float, likeliest: str) -> Risk:
    others = [name for name in TAXONOMY.risky_categories if name != likeliest]
    shares = {likeliest: 0.8} | {name: 0.2 / len(others) for name in others}
    return Risk(
        score,
        {"safe": 1 - score, "caution": 0.0, "restrict": 0.0, "refuse": score},
        {TAXONOMY.clean: 1 - score} | {name: score * share for name, share in shares.items()},
    )


def mixed(n: int, seed: int = 0, categories: Sequence[str] = ("illegal", "privacy")) -> list[ScoredImage]:
    """Safe and risky images by turns, the risky ones with higher scores; the likeliest category is mostly right."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        category = "" if number % 2 else categories[number // 2 % len(categories)]
        score = float(rng.beta(4, 2) if category else rng.beta(2, 5))
        wrong = not category or rng.random() < 0.1
        likeliest = str(rng.choice(categories)) if wrong else category
        found.append(scored(score, category=category, likeliest=likeliest))
    return found
