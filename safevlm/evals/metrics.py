"""Numbers with their intervals: accuracy (Wilson), AUROC (DeLong), exact-match of short answers."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from safevlm.estimate import Z95, Estimate, proportion


def accuracy(predicted: Sequence[object], gold: Sequence[object]) -> Estimate:
    """Share of equal pairs; raises ValueError for different lengths or none."""
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} predictions for {len(gold)} gold labels; pass one for each")
    return proportion(sum(a == b for a, b in zip(predicted, gold, strict=True)), len(gold))


def auroc(scores: Sequence[float | None], labels: Sequence[bool | int]) -> Estimate:
    """P(score of a positive > score of a negative), ties one half, exactly, with a 95 % interval.

    The variance is DeLong's (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837), by mid-ranks
    (Sun & Xu 2014, IEEE SPL 21:1389). The interval is taken on the logit scale, so that it stays in
    (0, 1). At exactly 0 or 1 that variance is 0 and says nothing; there the Wilson interval of a
    proportion over the smaller class stands in, which is wide rather than empty.

    Args:
        scores: any finite numbers, higher = more positive.
        labels: True or 1 for positive, False or 0 for negative.

    Raises:
        ValueError: different lengths; None, NaN or infinity among the scores; fewer than two of a class.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores for {len(labels)} labels; pass one for each")
    values = np.asarray([math.nan if score is None else score for score in scores], dtype=np.float64)
    if (bad := int((~np.isfinite(values)).sum())) > 0:
        raise ValueError(
            f"{bad} of {len(values)} scores are None, NaN or infinite (undecided); "
            "count those items apart, or give them the worst score of their class"
        )
    truth = np.asarray(labels, dtype=bool)
    positive, negative = values[truth], values[~truth]
    if min(len(positive), len(negative)) < 2:
        raise ValueError(
            f"an AUROC needs at least two items of each class; got {len(positive)} positive "
            f"and {len(negative)} negative"
        )
    return _delong(positive, negative)


def _delong(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> Estimate:
    m, n = len(positive), len(negative)
    ranks = _midranks(np.concatenate([positive, negative]))
    above = (ranks[:m] - _midranks(positive)) / n  # fraction of negatives below each positive
    below = 1 - (ranks[m:] - _midranks(negative)) / m  # fraction of positives above each negative
    area = float(above.mean())
    if not 1e-12 < area < 1 - 1e-12:
        edge = proportion(min(m, n) if area > 0.5 else 0, min(m, n))
        return Estimate(edge.value, edge.low, edge.high, m + n)
    deviation = math.sqrt(float(above.var(ddof=1)) / m + float(below.var(ddof=1)) / n)
    centre, half = math.log(area / (1 - area)), Z95 * deviation / (area * (1 - area))
    return Estimate(area, _logistic(centre - half), _logistic(centre + half), m + n)


def _midranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[where]
    return ranks


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))


_ARTICLES = frozenset(("a", "an", "the"))
# Words that may stand before a short answer without changing it; a closed list, so "sea" and "not" are out.
_CARRIER_WORDS = (
    "it this that there here these they i we you see is are s of image picture photo photograph drawing scene "
    "thing text word words writing sign what shows show depicts contains says reads answer option colour color"
)
_CARRIER = _ARTICLES | frozenset(_CARRIER_WORDS.split())
_NUMBERS = frozenset(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
_COLOURS = frozenset(
    ("red", "green", "blue", "yellow", "orange", "purple", "brown", "grey", "gray", "pink", "black", "white")
)


def normalise_answer(text: str) -> str:
    """Lower case (NFKC), punctuation to blanks, articles and spare blanks removed: "The Lion." -> "lion"."""
    return " ".join(word for word in _words(text) if word not in _ARTICLES)


def matches(answer: str, expected: str) -> bool:
    """Whether `answer` says what was expected. Strict:

    - equal after `normalise_answer`, or equal after the carrier words at the beginning are dropped as
      well, on either side: "It is a lion.", "a photo of a lion." and "lion" match one another; "sea
      lion", "not a lion" and "a lion and a dog" do not match "lion". A last word is never dropped.
    - the answer may add a number and a colour: "a drawing of three grey lions." matches "lion", but
      "lion" does not match "grey lion". A plural is accepted after a number from two on.
    - expected yes or no, alone or as the first word: the answer begins with the same word.
    - expected one letter (a choice): the answer is that letter or begins with it and a mark ("B", "(B)",
      "B. a hammer", "Option B"), or it ends by saying so: "a hammer, so the answer is B."; "A lion" does not
      match "A".

    Raises:
        ValueError: nothing is left of `expected`.
    """
    wanted = _words(expected)
    if not wanted:
        raise ValueError(f"the expected answer {expected!r} has no words; fix the row's answer column")
    if len(wanted) == 1 and len(wanted[0]) == 1 and wanted[0].isalpha():
        before = r"(?:the )?(?:answer|option)(?: is)?:? "
        if stated := re.search(rf"\b{before}\(?([a-z])[.):,\s]*$", answer, re.IGNORECASE):
            return stated[1].lower() == wanted[0]
        first = rf"\s*(?:{before})?\(?{wanted[0]}(?:[.):,\s]*$|[.):,])"
        return re.match(first, answer, re.IGNORECASE) is not None
    given = _words(answer)
    if wanted[0] in ("yes", "no"):
        return given[:1] == wanted[:1]
    if not given:
        return False
    if normalise_answer(answer) == normalise_answer(expected):
        return True
    said, short = _core(given), _core(wanted)
    return said == short or _matches_described(said, short)


def _matches_described(said: list[str], wanted: list[str]) -> bool:
    """Whether `said` is `wanted` behind a number, a colour or both, the last word perhaps in the plural."""
    several = len(said) > 1 and said[0] in _NUMBERS
    for words in (_NUMBERS | {"one"}, _COLOURS):
        if len(said) > len(wanted) and said[0] in words:
            said = said[1:]
    return said == wanted or (several and said[:-1] == wanted[:-1] and said[-1] in _plurals(wanted[-1]))


def _plurals(word: str) -> set[str]:
    return {word + "s", word + "es", re.sub("y$", "ies", word), re.sub("fe?$", "ves", word)}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())


def _core(words: list[str]) -> list[str]:
    """The words without the carrier at their beginning, at least the last, and without articles."""
    start = 0
    while start < len(words) - 1 and words[start] in _CARRIER:
        start += 1
    return [word for word in words[start:] if word not in _ARTICLES]
