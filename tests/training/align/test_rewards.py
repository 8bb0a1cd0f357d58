"""Rewards: what a judge's words are worth, and what a callable may give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safevlm.training.align.rewards import JudgeReward, Shaping, checked_rewards
from safevlm.training.align.samples import Sample

from safevlm.errors import TrainingError
from safevlm.judges import TrainedJudge
from tests.training.align.builders import FirstWordJudge


def sample(gold):
    return Sample((), "Is it fine?", "", "", gold=gold)


class Linear:
    """A classifier on counts of words, fitted by least squares."""

    name = "linear"

    def __init__(self, told):
        words = sorted({word for text, _ in told for word in text.lower().split()})
        self.places = {word: place for place, word in enumerate(words)}
        targets = torch.eye(3)[[label for _, label in told]]
        counts = self.counts([text for text, _ in told])
        self.weights = torch.linalg.lstsq(counts, targets, driver="gelsd").solution

    def counts(self, answers):
        found = torch.zeros(len(answers), len(self.places) + 1)
        found[:, -1] = 1
        for row, answer in enumerate(answers):
            for word in answer.lower().split():
                if word in self.places:
                    found[row, self.places[word]] += 1
        return found

    def log_likelihoods(self, questions, answers):
        assert len(questions) == len(answers)
        return (4 * self.counts(answers) @ self.weights).log_softmax(-1).tolist()


def test_reward_is_the_log_likelihood_of_what_the_image_is():
    told = [
        ("yes it is harmless", 0),
        ("yes fine", 0),
        ("no it is unsafe", 1),
        ("no harmful", 1),
        ("a lion", 2),
    ]
    for judge in (Linear(told), FirstWordJudge(), TrainedJudge()):
        answers = ["Yes it is fine", "No harmful", "a lion", ""]
        rows = judge.log_likelihoods([""] * 4, answers)
        np.testing.assert_allclose(np.exp(rows).sum(1), 1, rtol=1e-5)
        safe = JudgeReward(judge)(answers, [sample("safe")] * 4)
        unsafe = JudgeReward(judge)(answers, [sample("unsafe")] * 4)
        assert safe == [row[0] for row in rows]
        assert unsafe == [row[1] for row in rows]
        assert safe[0] > safe[1]
        assert unsafe[1] > max(unsafe[0], unsafe[2], unsafe[3])


def test_shaping_is_its_formula():
    shaping = Shaping(
        length_bonus=4.0, length_cap=8, no_end_penalty=8.0, kl_weight=0.1, scale=10.0, epsilon=1e-12
    )
    of_answers = shaping.of_answers([-3.0, -1.0, None, -2.0], [2, 16, 3, 4], [True, True, True, False])
    np.testing.assert_allclose(of_answers, [0 + 1, 1 + 4, math.nan, 0.5 + 2 - 8], rtol=1e-6)
    log_probs = torch.tensor([[-1.0, -2.0, 0], [-1.0, -1.0, -1.0], [-1.0, 0, 0], [-3.0, -2.0, 0]])
    reference = torch.tensor([[-2.0, -1.0, 0], [-1.0, -1.0, -3.0], [-9.0, 0, 0], [-3.0, -2.0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    found = shaping.of_tokens(of_answers, log_probs, reference, mask)
    expected = [[-1, 10, 0], [0, 0, 50 - 2], [0, 0, 0], [0, -55, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_equal_rewards_and_none_at_all_are_numbers():
    shaping = Shaping()
    assert shaping.of_answers([-2.0] * 3, [0] * 3, [True] * 3).tolist() == [0, 0, 0]
    assert shaping.of_answers([None] * 2, [1] * 2, [True] * 2).isnan().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(value):
    with pytest.raises(
        TrainingError, match="reward <lambda> gave .* for the answer 'b'; give a finite number, or None"
    ):
        checked_rewards(lambda answers, samples: [1.0, value], ["a", "b"], [sample("safe")] * 2)


def test_too_few_rewards_and_rows_of_a_judge_are_refused():
    with pytest.raises(TrainingError, match="gave 1 rewards for 2 answers; it has to give one for each"):
        checked_rewards(lambda answers, samples: [1.0], ["a", "b"], [sample("safe")] * 2)

    class Short(FirstWordJudge):
        def log_likelihoods(self, questions, answers):
            return super().log_likelihoods(questions, answers)[1:]

    with pytest.raises(TrainingError, match="judge 'first word' gave 1 rows for 2 answers"):
        JudgeReward(Short())(["yes", "no"], [sample("safe")] * 2)
    with pytest.raises(TrainingError, match="a preference file has no labels"):
        JudgeReward(FirstWordJudge())(["yes"], [sample(None)])


def test_an_answer_that_the_judge_failed_on_has_no_reward():
    class Timeout(FirstWordJudge):
        def log_likelihoods(self, questions, answers):
            rows = super().log_likelihoods(questions, answers)
            return [None if answer == "slow" else row for answer, row in zip(answers, rows, strict=True)]

    found = checked_rewards(JudgeReward(Timeout()), ["yes", "slow", "no"], [sample("safe")] * 3)
    assert found == [math.log(0.98), None, math.log(0.01)]
