"""The losses against plain NumPy; DPO's against TRL's formula."""

from __future__ import annotations

import numpy as np
import torch
from safevlm.training.align.losses import dpo_losses, masked_mean, policy_losses, value_losses


def drawn(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_policy_loss_is_the_clipped_objective():
    old, step, advantages = drawn((50, 4), (50, 4), (50, 4))
    new = old + 0.4 * step
    ratio = np.exp(new - old)
    expected = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    found, clipped = policy_losses(*map(torch.tensor, (new, old, advantages)), clip=0.2)
    np.testing.assert_allclose(found, -expected, rtol=1e-5, atol=1e-6)
    outside = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
    assert np.array_equal(clipped.numpy(), outside)
    assert 0 < outside.mean() < 1


def test_a_clipped_token_has_no_gradient_and_another_has_its_advantage():
    new = torch.tensor([0.5, 0.5, -0.5, 0.0], requires_grad=True)
    losses, _ = policy_losses(new, torch.zeros(4), torch.tensor([1.0, -1.0, -1.0, 2.0]), clip=0.2)
    losses.sum().backward()
    np.testing.assert_allclose(new.grad, [0.0, np.exp(0.5), 0.0, -2.0], rtol=1e-6)


def test_value_loss_is_the_larger_of_plain_and_clipped():
    old, step, returns = drawn((50, 4), (50, 4), (50, 4))
    new = old + 0.5 * step
    clipped = old + np.clip(new - old, -0.2, 0.2)
    expected = 0.5 * np.maximum((new - returns) ** 2, (clipped - returns) ** 2)
    found = value_losses(*map(torch.tensor, (new, old, returns)), clip=0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_dpo_loss_is_that_of_trl():
    """`DPOTrainer.dpo_loss`, loss_type sigmoid: -logsigmoid(beta * ((pi_c - pi_r) - (ref_c - ref_r)))."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = drawn(*[(64,)] * 4, seed=5)
    logits = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
    for beta in (0.1, 0.5):
        expected = np.log1p(np.exp(-beta * logits))
        chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
        found = dpo_losses(torch.tensor(chosen), torch.tensor(rejected), beta=beta)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_mean_over_nothing_is_0():
    values = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert masked_mean(values, torch.tensor([[True, False], [True, False]])) == 3
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)) == 0
