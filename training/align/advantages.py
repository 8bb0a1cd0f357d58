"""How much better each token of an answer was than expected: two estimators, in one tensor form.

Answers are rows of (B, T) tensors, filled up on the right; `mask` says which positions are tokens that may teach.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to a spread that is divided by, so that values which are all equal give 0."""


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al., arXiv 1506.02438, eq. 16).

    delta_t = r_t + gamma V_(t+1) - V_t and A_t = delta_t + gamma lam A_(t+1); behind an answer's last token V and A are 0.

    Args:
        rewards, values: (B, T) float32, of each token and of the state before it.
        mask: (B, T) bool.
        gamma: discount, in [0, 1].
        lam: weight of later steps, in [0, 1]; 1 is the return minus the value.

    Returns:
        Advantages and returns (advantages + values), each (B, T) float32 and 0 outside the mask.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    later_value = later_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * later_value - values[:, t]
        later_advantage = (delta + gamma * lam * later_advantage) * mask[:, t]
        later_value = values[:, t]
        advantages[:, t] = later_advantage
    return advantages, advantages + values


def group_advantages(rewards: Tensor, mask: Tensor, *, size: int) -> Tensor:
    """Group-relative advantages (GRPO; Shao et al., arXiv 2402.03300, section 4.1.2): no value head.

    An answer's return minus the mean return of the answers to the same prompt, over their standard deviation (of the
    population), for each of its tokens. Answers outside the mask take no part.

    Args:
        rewards: (B, T) float32, of each token.
        mask: (B, T) bool; an answer is in or out as a whole.
        size: answers per prompt, which follow one another; B is a multiple.

    Returns:
        (B, T) float32, 0 outside the mask and where all returns of a group are equal.
    """
    returns = (rewards * mask).sum(dim=1).view(-1, size)
    counted = mask.any(dim=1).view(-1, size).to(returns)
    count = counted.sum(dim=1, keepdim=True).clamp(min=1)
    centred = (returns - (returns * counted).sum(dim=1, keepdim=True) / count) * counted
    spread = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()
    return (centred / (spread + EPSILON)).view(-1, 1) * mask


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """The values with mean 0 and variance 1 over the mask, (B, T) float32; 0 outside, and where all are equal."""
    count = mask.sum().clamp(min=1)
    centred = (values - (values * mask).sum() / count) * mask
    return centred / ((centred.square().sum() / count).sqrt() + EPSILON)
