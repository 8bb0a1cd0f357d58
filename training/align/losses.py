"""The losses of PPO and DPO, each a formula of log-probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def policy_losses(new: Tensor, old: Tensor, advantages: Tensor, *, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped objective (Schulman et al., arXiv 1707.06347, eq. 7), negated: -min(r A, clip(r, 1 - c, 1 + c) A).

    Args:
        new, old: log-probabilities of the tokens now and when they were sampled, any one shape; r = exp(new - old).
        advantages: of the same shape.
        clip: c, above 0.

    Returns:
        The loss of each token, and whether the clipped term is the one that counts.
    """
    ratio = (new - old).exp()
    plain, clipped = -ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.maximum(plain, clipped), clipped > plain


def value_losses(new: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """PPO's clipped value loss of each token: 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)."""
    clipped = torch.maximum(torch.minimum(new, old + clip), old - clip)
    return 0.5 * torch.maximum((new - returns).square(), (clipped - returns).square())


def dpo_losses(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """DPO (Rafailov et al., arXiv 2305.18290, eq. 7): -log sigmoid(beta (chosen - rejected)), of each pair.

    Args:
        chosen, rejected: (B,) log pi(y | x) - log pi_ref(y | x) of the two answers of a pair, summed over their tokens.
        beta: how closely the policy is held to the reference, above 0.
    """
    return -F.logsigmoid(beta * (chosen - rejected))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the mask; 0 where it is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
