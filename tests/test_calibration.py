"""Temperature scaling against temperatures that are known."""

from __future__ import annotations

import pytest
import torch

from safevlm.calibration import PRIOR, calibrate, fit_temperature, negative_log_likelihood


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
