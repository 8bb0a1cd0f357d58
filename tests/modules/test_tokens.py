from __future__ import annotations

import pytest
import torch

from safevlm.modules import SafetyTokens


def test_two_independent_sets_drawn_from_a_narrow_normal() -> None:
    torch.manual_seed(0)
    tokens = SafetyTokens(64, 512)
    assert {name: tuple(p.shape) for name, p in tokens.named_parameters()} == {
        "head": (64, 512),
        "prompt": (64, 512),
    }
    assert tokens.head.data_ptr() != tokens.prompt.data_ptr()
    assert not torch.equal(tokens.head, tokens.prompt)
    for parameter in (tokens.head, tokens.prompt):
        assert abs(parameter.mean().item()) < 0.001
        assert abs(parameter.std().item() - 0.02) < 0.001


@pytest.mark.parametrize(("count", "dim"), [(0, 4), (-1, 4), (4, 0)])
def test_no_tokens_raise(count: int, dim: int) -> None:
    with pytest.raises(ValueError, match=r"SafetyTokens: .* must be an integer >= 1"):
        SafetyTokens(count, dim)
