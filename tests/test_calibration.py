"""Temperatures, priors and thresholds against those that are known."""

from __future__ import annotations

import pytest
import torch

from safevlm import Taxonomy
from safevlm.calibration import (
    PRIOR,
    calibrate,
    choose_operating_point,
    choose_reading,
    fit_temperature,
    level_probabilities,
    negative_log_likelihood,
)
from safevlm.config import Calibration


def sampled(temperature: float, count: int = 20000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 4, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_known_temperature_is_recovered(temperature):
    logits, labels = sampled(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_likelihood_never_gets_worse(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, 4, generator=generator) * 10
    labels = torch.randint(0, 4, (60,), generator=generator)
    labels[::7] = -100
    fitted = negative_log_likelihood(logits, labels, fit_temperature(logits, labels))
    assert fitted <= negative_log_likelihood(logits, labels)


def separable(margin: float, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right for every item, by a margin."""
    labels = torch.arange(count) % 4
    return torch.nn.functional.one_hot(labels, 4).float() * margin, labels


@pytest.mark.parametrize("margin", [0.5, 5.0, 500.0])
def test_separable_items_determine_no_temperature(margin, caplog):
    logits, labels = separable(margin)
    assert calibrate(logits, labels, data="t", items=80) is None
    assert (
        "not called calibrated: the head tells the tune items' levels apart without an error" in caplog.text
    )
    assert fit_temperature(logits, labels, items=80) > 0.02  # the prior's, not the bound's


@pytest.mark.parametrize("margin", [1.0, 5.0])
def test_almost_separable_items_leave_doubt(margin):
    """One error in 80: the surest item is one in 2,000, where the greatest likelihood says one in 13,000."""
    logits, labels = separable(margin)
    labels[0] = 1
    logits[0] = torch.tensor([margin / 50, 0.0, 0.0, 0.0])
    found = calibrate(logits, labels, data="t", items=80)
    assert found is not None
    assert doubt(logits, found.temperature) > 1 / 2000
    assert doubt(logits, fit_temperature(logits, labels)) < 1 / 10_000


def doubt(logits: torch.Tensor, temperature: float) -> float:
    """What the surest item leaves to the other levels."""
    return 1 - float((logits.double() / temperature).softmax(-1).max())


def test_the_prior_weighs_no_more_than_a_few_items():
    logits, labels = sampled(2.5, 400)
    assert fit_temperature(logits, labels, items=400) == pytest.approx(
        fit_temperature(logits, labels), rel=0.02
    )
    least = min(range(-40, 41), key=lambda n: cost(logits, labels, 1.1**n, items=400))
    assert fit_temperature(logits, labels, items=400) == pytest.approx(1.1**least, rel=0.06)


def cost(logits: torch.Tensor, labels: torch.Tensor, temperature: float, items: int) -> float:
    """Minus the logarithm of likelihood and prior, by torch.distributions."""
    likelihood = torch.distributions.Categorical(logits=logits / temperature).log_prob(labels).mean() * items
    prior = torch.distributions.Normal(0.0, PRIOR).log_prob(torch.tensor(temperature).log())
    return -float(likelihood + prior)


def test_scores_that_say_nothing_are_not_calibrated(caplog):
    logits, labels = separable(5.0)
    assert calibrate(-logits, labels, data="t", items=80) is None
    assert "say nothing about" in caplog.text


@pytest.mark.parametrize(("level", "word"), [(0, "safe"), (2, "risky")])
def test_one_side_alone_is_not_calibrated(level, word, caplog):
    logits, _ = sampled(1.0, 80)
    assert calibrate(logits, torch.full((80,), level), data="t", items=80) is None
    assert f"every labelled tune item is {word}" in caplog.text


def test_few_of_a_side_are_told(caplog):
    logits, labels = sampled(1.0, 200)
    labels[labels == 0] = -100
    labels[:5] = 0
    assert calibrate(logits, labels, data="t", items=int((labels >= 0).sum())) is not None
    assert "rests on few items: 5 safe" in caplog.text


def test_too_few_items_or_bad_logits_give_none_and_say_so(caplog):
    logits, labels = sampled(1.0, 49)
    assert calibrate(logits, labels, data="t", items=49) is None
    assert "at least 50" in caplog.text
    assert calibrate(torch.full((60, 4), torch.nan), torch.zeros(60).long(), data="t", items=60) is None
    found = calibrate(*sampled(2.0, 1000), data="t.parquet", items=500)
    assert (found.data, found.samples) == ("t.parquet", 500)


def two_classes(share: float, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws of x ~ N(1, 1) where risky, N(-1, 1) where safe, of which the log odds are 2 x + logit(share), as logits."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, generator=generator) < share).long()
    x = torch.randn(count, generator=generator) + 2 * labels - 1
    log_odds = 2 * x + torch.logit(torch.tensor(share))
    return torch.stack([torch.zeros_like(x), log_odds], 1), labels


@pytest.mark.parametrize("prior", [0.05, 0.5, 0.9])
def test_scores_are_those_of_the_stated_prior(prior):
    """A head that knows the densities and was trained and calibrated on half and half, used at another share."""
    found = calibrate(*two_classes(0.5, 20_000, 0), data="t", items=20_000, prior=prior)
    assert found.share == pytest.approx(0.5, abs=0.01)
    assert found.prior == prior
    x, labels = two_classes(prior, 200_000, 1)
    x[:, 1] -= torch.logit(torch.tensor(prior))  # the head's logits do not know the new share
    scores = level_probabilities(x, found)[:, 1]
    assert float(scores.mean()) == pytest.approx(float(labels.double().mean()), abs=0.01)
    for low in (0.1, 0.3, 0.6):  # and so it is among images of one score
        near = (scores >= low) & (scores < low + 0.2)
        assert float(scores[near].mean()) == pytest.approx(float(labels[near].double().mean()), abs=0.03)


def test_a_prior_moves_all_risky_levels_alike():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    before = level_probabilities(logits, Calibration(1.7, "t", 50, share=0.4, prior=0.4))
    after = level_probabilities(logits, Calibration(1.7, "t", 50, share=0.4, prior=0.1))
    assert torch.allclose(before, (logits.double() / 1.7).softmax(-1))
    assert torch.allclose(after.sum(-1), torch.ones(50).double())
    odds = [(1 - p[:, 0]) / p[:, 0] for p in (before, after)]
    assert torch.allclose(odds[1], odds[0] * (0.1 / 0.9) / (0.4 / 0.6))
    assert torch.allclose(after[:, 1] / after[:, 3], before[:, 1] / before[:, 3])


def least_threshold(scores: torch.Tensor, safe: torch.Tensor, rate: float) -> float:
    """The least score of any item, as a threshold, that flags at most this share of the safe ones."""
    return min(float(s) for s in scores if float((safe >= s).double().mean()) <= rate)


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("digits", [1, 2, 6])
def test_the_operating_point_flags_what_the_least_threshold_does(rate, digits):
    generator = torch.Generator().manual_seed(digits)
    scores = torch.rand(700, generator=generator).double().round(decimals=digits)
    levels = torch.randint(0, 4, (700,), generator=generator)
    levels[::9] = -100
    scores[levels == 0] *= 0.8
    safe = scores[levels == 0]
    found = choose_operating_point(scores, levels, false_positive_rate=rate, data="t")
    least = least_threshold(scores, safe, rate)
    assert torch.equal(scores >= found.threshold, scores >= least)
    assert found.threshold <= least
    assert (found.false_positive_rate, found.data, found.samples) == (rate, "t", len(safe))


def test_equal_scores_are_flagged_together_or_not_at_all():
    scores = torch.tensor([0.6] * 50 + [0.2] * 50 + [0.9] * 20).double()
    levels = torch.tensor([0] * 100 + [2] * 20)
    found = choose_operating_point(scores, levels, false_positive_rate=0.4, data="t")
    assert 0.6 < found.threshold < 0.9


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (torch.rand(99).double(), "99 safe tune rows with an image, at least 100"),
        (torch.ones(200), "have the score 1"),
    ],
)
def test_where_no_operating_point_can_be_chosen(scores, told, caplog):
    levels = torch.zeros(len(scores)).long()
    assert choose_operating_point(scores, levels, false_positive_rate=0.03, data="t") is None
    assert told in caplog.text


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.95])
def test_the_reading_point_is_the_greatest_that_reads_enough(recall, caplog):
    caplog.set_level("INFO")
    taxonomy = Taxonomy.preset("safevlm")
    generator = torch.Generator().manual_seed(0)
    categories = torch.randint(0, len(taxonomy.category_names), (900,), generator=generator)
    probabilities = torch.rand(900, len(taxonomy.category_names), generator=generator).double()
    found = choose_reading(probabilities, categories, taxonomy, category="politics", recall=recall, data="t")
    p = probabilities[:, taxonomy.category_names.index("politics")]
    own = p[categories == taxonomy.category_names.index("politics")]
    greatest = max(float(s) for s in own if float((own >= s).double().mean()) >= recall)
    assert torch.equal(p >= found.threshold, p >= greatest)
    assert (found.category, found.data, found.samples) == ("politics", "t", len(own))
    clean = p[categories == taxonomy.category_names.index(taxonomy.clean)]
    read = 100 * float((clean >= greatest).double().mean())
    assert f"and {read:.1f} % of {len(clean)} clean ones" in caplog.text


def test_a_reading_point_needs_rows_of_its_category(caplog):
    taxonomy = Taxonomy.preset("safevlm")
    probabilities = torch.rand(59, len(taxonomy.category_names))
    categories = torch.full((59,), taxonomy.category_names.index("politics"))
    given = (probabilities, categories, taxonomy)
    assert choose_reading(*given, category="politics", recall=0.95, data="t") is None
    assert "59 tune rows with an image are labelled politics, at least 60" in caplog.text
