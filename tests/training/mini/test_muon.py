"""Muon's update is orthogonal, and it trains."""

from __future__ import annotations

import pytest
import torch
from safevlm.training.mini.muon import Muon, matrices_and_rest, orthogonal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 24, 8), (2, 8, 24)])
def test_singular_values_come_near_one(shape, dtype):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(*shape).to(dtype)).float())
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5


def test_it_lowers_a_loss():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    matrices, rest = matrices_and_rest(model, inside="weight")
    assert (len(matrices), len(rest)) == (2, 2)
    optimizer, inputs, targets = Muon(matrices, lr=0.05), torch.randn(64, 8), torch.randn(64, 4)
    losses = []
    for _ in range(30):
        loss = (model(inputs) - targets).square().mean()
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
