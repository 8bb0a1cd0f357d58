"""Self-BLEU: how much a model's answers are alike (Zhu et al. 2018, Texygen, arXiv 1802.01886)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
"""The longest n-grams that are compared: BLEU-4."""
EPSILON = 0.1
"""Matches of an order that has none: smoothing method 1 of Chen & Cherry 2014 (WMT), as Texygen takes it."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


def self_bleu(texts: Sequence[str]) -> list[float]:
    """BLEU-4 of each text against all the others as its references, in [0, 1]; the mean is Self-BLEU.

    BLEU (Papineni et al. 2002, ACL) = BP * exp(mean_n log p_n) with p_n = matches / n-grams of the text, where an n-gram
    matches as often as it stands in the one reference that has it most often, and BP = exp(1 - r / c) for a text of c
    tokens that is shorter than r, the length of the reference nearest to it in length, of two the shorter. An order
    without a match counts `EPSILON` matches; a text that shares no token has 0. Orders that a text is too short for are left
    out (effective order), so that equal texts have 1 however short they are. Tokens are words in lower case, and marks.

    The cost is linear in the tokens: of each n-gram the two highest counts are kept, so that no text is compared with another.

    Args:
        texts: two or more, each with a token.

    Raises:
        ValueError: fewer than two texts, or one without a token.
    """
    tokens = [_TOKEN.findall(text.lower()) for text in texts]
    if len(tokens) < 2 or not all(tokens):
        raise ValueError(
            f"{len(tokens)} texts, {sum(not own for own in tokens)} of them empty; Self-BLEU compares two or more, each with a word"
        )
    lengths = Counter(map(len, tokens))
    matches = [_matches(tokens, order) for order in range(1, ORDERS + 1)]
    return [
        _brevity(len(own), lengths) * _precision(len(own), [found[place] for found in matches])
        for place, own in enumerate(tokens)
    ]


def _matches(tokens: Sequence[Sequence[str]], order: int) -> list[int]:
    """Per text how many of its n-grams match, each as often as another text has it at most."""
    counts = [
        Counter(tuple(own[start : start + order]) for start in range(len(own) - order + 1)) for own in tokens
    ]
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}  # n-gram -> highest count, whose, the next one
    for place, own in enumerate(counts):
        for gram, count in own.items():
            best, holder, second = most.get(gram, (0, -1, 0))
            most[gram] = (count, place, best) if count > best else (best, holder, max(second, count))
    found = []
    for place, own in enumerate(counts):
        total = 0
        for gram, count in own.items():
            best, holder, second = most[gram]
            total += min(count, second if holder == place else best)
        found.append(total)
    return found


def _precision(length: int, matches: Sequence[int]) -> float:
    """The geometric mean of p_n over the orders that a text of this length has."""
    if not matches[0]:
        return 0.0
    orders = range(1, min(ORDERS, length) + 1)
    logs = [math.log((matches[order - 1] or EPSILON) / (length - order + 1)) for order in orders]
    return math.exp(math.fsum(logs) / len(logs))


def _brevity(length: int, lengths: Counter[int]) -> float:
    nearest = min(
        (other for other, count in lengths.items() if count > (other == length)),
        key=lambda other: (abs(other - length), other),
    )
    return 1.0 if length >= nearest else math.exp(1 - nearest / length)
