"""Advantages against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safevlm.training.align.advantages import gae, group_advantages, whiten


def made(seed, rows=6, width=7):
    """Rewards and values of answers of several lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows)
    mask = np.arange(width) < lengths[:, None]
    return rng.normal(size=(rows, width)), rng.normal(size=(rows, width)), mask


def tensors(*arrays):
    return [
        torch.tensor(array, dtype=torch.bool if array.dtype == bool else torch.float32) for array in arrays
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.95), (0.5, 0.0)])
def test_gae_is_the_sum_of_discounted_deltas(gamma, lam):
    rewards, values, mask = made(0)
    expected = np.zeros_like(rewards)
    for row in range(len(rewards)):
        length = mask[row].sum()
        for t in range(length):
            for later in range(t, length):
                following = values[row, later + 1] if later + 1 < length else 0.0
                delta = rewards[row, later] + gamma * following - values[row, later]
                expected[row, t] += (gamma * lam) ** (later - t) * delta
    advantages, returns = gae(*tensors(rewards, values, mask), gamma=gamma, lam=lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    np.testing.assert_allclose(returns, expected + values * mask, atol=1e-5)


def test_gae_of_1_and_1_is_the_return_minus_the_value():
    rewards, values, mask = made(1)
    advantages, returns = gae(*tensors(rewards, values, mask), gamma=1.0, lam=1.0)
    to_come = np.flip(np.flip(rewards * mask, 1).cumsum(1), 1) * mask
    np.testing.assert_allclose(returns, to_come, atol=1e-5)
    np.testing.assert_allclose(advantages, (to_come - values) * mask, atol=1e-5)


def test_group_advantages_are_the_returns_standardised_within_their_group():
    rewards, _, mask = made(2)
    mask[4] = False  # could not be judged
    found = group_advantages(*tensors(rewards, mask), size=3)
    returns = (rewards * mask).sum(1)
    for group in ([0, 1, 2], [3, 5]):
        own = returns[group]
        for row, value in zip(group, (own - own.mean()) / own.std(), strict=True):
            np.testing.assert_allclose(found[row], value * mask[row], rtol=1e-4, atol=1e-5)
    assert not found[4].any()


def test_whitened_advantages_have_mean_0_and_variance_1_over_the_tokens():
    values, _, mask = made(3)
    found = whiten(*tensors(values, mask))
    own = values[mask]
    np.testing.assert_allclose(found[torch.tensor(mask)], (own - own.mean()) / own.std(), atol=1e-5)
    assert not found[~torch.tensor(mask)].any()


@pytest.mark.parametrize("taught", [True, False])
def test_equal_rewards_and_no_token_at_all_give_0(taught):
    rewards, mask = torch.full((4, 3), 2.0), torch.full((4, 3), taught)
    for found in (
        whiten(rewards, mask),
        group_advantages(rewards, mask, size=2),
        whiten(gae(rewards[:, :1], rewards[:, :1] * 0, mask[:, :1], gamma=1.0, lam=1.0)[0], mask[:, :1]),
    ):
        assert torch.equal(found, torch.zeros_like(found))
