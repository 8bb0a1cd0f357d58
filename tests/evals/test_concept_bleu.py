"""Self-BLEU against torchmetrics' BLEU, sums by hand, and identities."""

from __future__ import annotations

import math
import random

import pytest
from torchmetrics.functional.text import bleu_score

from safevlm.evals.concepts.bleu import EPSILON, self_bleu


def test_equals_the_bleu_of_each_text_against_the_others():
    rng = random.Random(0)
    # four words and a common opening: every order has a match, so that smoothing plays no part
    texts = ["a b c d " + " ".join(rng.choices("abcd", k=rng.randrange(3, 12))) for _ in range(30)]
    found = self_bleu(texts)
    for place, text in enumerate(texts):
        # of two that are equally near in length torchmetrics takes the first, and BLEU the shorter
        others = sorted(texts[:place] + texts[place + 1 :], key=len)
        assert found[place] == pytest.approx(float(bleu_score([text], [others], n_gram=4)), abs=1e-6)
    assert len({round(value, 6) for value in found}) > 20


def test_sums_by_hand():
    # 4 of 5 tokens, 1 of 4 pairs, none of 3 triples and 2 fours: EPSILON of each; as long as its only reference
    value = (4 / 5 * 1 / 4 * EPSILON / 3 * EPSILON / 2) ** 0.25
    assert self_bleu(["the cat is here now", "now the cat was here"])[0] == pytest.approx(value)
    # two tokens, so two orders; the nearest reference has 3
    short = math.exp(1 - 3 / 2) * math.sqrt(2 / 2 * EPSILON / 1)
    assert self_bleu(["b a", "a x b", "a x b y z"])[0] == pytest.approx(short)
    # of two references that are equally near the shorter counts
    assert self_bleu(["a b c", "a b", "a b c d"])[0] == pytest.approx(1)
    # a repeated word matches as often as the reference has it that has it most often
    assert self_bleu(["no no no no", "no", "no no"])[0] == pytest.approx(
        (2 / 4 * 1 / 3 * EPSILON / 2 * EPSILON / 1) ** 0.25
    )


def test_equal_texts_have_1_however_short_and_strangers_0():
    for text in ("No.", "No", "No, it is not. What the image shows is unsafe."):
        assert self_bleu([text] * 5) == pytest.approx([1.0] * 5)
    assert self_bleu(["one two", "three four", "five six"]) == [0.0] * 3
    assert self_bleu(["YES , it  is", "yes, it is"]) == pytest.approx([1.0] * 2)


@pytest.mark.parametrize("texts", [[], ["alone"], ["one", " "]])
def test_too_few_texts_are_refused(texts):
    with pytest.raises(ValueError, match="compares two or more"):
        self_bleu(texts)
