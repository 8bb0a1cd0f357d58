"""Temperature scaling against temperatures that are known."""

from __future__ import annotations

import pytest
import torch
from safevlm.training.calibration import calibrate, fit_temperature, negative_log_likelihood


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


def test_separable_data_stays_in_bounds():
    logits = torch.eye(4).repeat(20, 1) * 5
    assert 0.01 <= fit_temperature(logits, torch.arange(4).repeat(20)) <= 100


def test_too_few_items_or_bad_logits_give_none_and_say_so(caplog):
    logits, labels = sampled(1.0, 49)
    assert calibrate(logits, labels, data="t", items=49) is None
    assert "at least 50" in caplog.text
    assert calibrate(torch.full((60, 4), torch.nan), torch.zeros(60).long(), data="t", items=60) is None
    found = calibrate(*sampled(2.0, 1000), data="t.parquet", items=500)
    assert (found.data, found.samples) == ("t.parquet", 500)
