from __future__ import annotations

import pytest
import torch

from safevlm.modules import SafetyDims, SafetyModules, safety_loss

from .builders import features_for, prompts, random_modules

LABELS = torch.tensor([0, 2, 3]), torch.tensor([6, 1, 4])


def grads(modules: SafetyModules, **inputs: torch.Tensor) -> set[str]:
    out = modules(features_for((3, 4)), (3, 4), **inputs)
    safety_loss(out.level_logits, out.category_logits, *LABELS).total.backward()
    return {
        name for name, p in modules.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-7
    }


@pytest.mark.parametrize("fresh", [False, True])
def test_the_loss_reaches_every_parameter_but_the_soft_prompt(fresh: bool) -> None:
    modules = random_modules()
    if fresh:
        modules = SafetyModules(SafetyDims(vision_dim=12, dim=32, text_dim=20, hidden_dim=16, num_tokens=5))
    every = {name for name, _ in modules.named_parameters()}
    assert every - grads(modules, prompt_embeddings=prompts()) == {"tokens.prompt"}


def test_images_alone_leave_the_prompt_projection_alone() -> None:
    modules = random_modules()
    every = {name for name, _ in modules.named_parameters()}
    assert every - grads(modules) == {"tokens.prompt", "head.prompt.weight"}


def test_forward_is_projector_then_head_on_set_a() -> None:
    modules = random_modules()
    features = features_for((2, 5))
    out = modules(features, (2, 5), prompt_embeddings=prompts())
    projected = modules.projector(features, (2, 5))
    expected = modules.head(projected, modules.tokens.head, prompt_embeddings=prompts())
    for left, right in zip(out, expected, strict=True):
        assert torch.equal(left, right)


def test_dims_reach_the_parts() -> None:
    dims = SafetyDims(
        vision_dim=6, dim=8, hidden_dim=5, depth=2, num_tokens=9, num_levels=3, num_categories=5,
        num_heads=2, pool_grid=(2, 3),
    )  # fmt: skip
    modules = SafetyModules(dims)
    out = modules(torch.randn(1, 20, 6), (4, 5))
    assert [tuple(tensor.shape) for tensor in out] == [(1, 3), (1, 5), (1, 6)]
    assert len(list(modules.projector.encode.children())) == 2
    assert modules.projector.expand.in_features == 5
    assert modules.tokens.head.shape == modules.tokens.prompt.shape == (9, 8)
    assert modules.head.num_heads == 2
    assert modules.head.prompt is None


def test_one_subtree_with_the_three_parts() -> None:
    assert [name for name, _ in random_modules().named_children()] == ["projector", "tokens", "head"]


@pytest.mark.parametrize(("hidden_dim", "millions"), [(1088, 107.8), (1024, 104.5)])
def test_parameter_count_for_llava_7b_is_the_papers_estimate(hidden_dim: int, millions: float) -> None:
    """About 108 M with the authors' 1088 channels, without the prompt projection, which is ours."""
    dims = SafetyDims(vision_dim=1024, dim=4096, text_dim=4096, hidden_dim=hidden_dim)
    with torch.device("meta"):
        modules = SafetyModules(dims)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in modules.named_children()}
    assert modules.head.prompt is not None
    prompt = modules.head.prompt.weight.numel()
    assert prompt == 4096**2
    assert counts["tokens"] == 2 * 64 * 4096
    assert round((sum(counts.values()) - prompt) / 1e6, 1) == millions, counts
