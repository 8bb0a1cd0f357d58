"""Wall 6: the folded scorer is the plain modules, to 1e-5 in float32 on random weights."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from safevlm.modules import HeadOutput, SafetyModules, fold

from .builders import features_for, prompts, random_modules

GRIDS = [(4, 4), (2, 7), (5, 3), (1, 1), (12, 12)]
TOLERANCE = 1e-5


def difference(left: HeadOutput, right: HeadOutput) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(left, right, strict=True))


def inputs(kind: str, patches: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    given: dict[str, Tensor] = {}
    if "prompt" in kind:
        given["prompt_embeddings"] = prompts()
    if "padded" in kind:
        given["prompt_mask"] = torch.arange(7).expand(3, -1) < torch.tensor([[7], [0], [3]])
    if "masked" in kind:
        mask = torch.rand(3, patches, generator=generator) < 0.6
        mask[2] = False
        given["feature_mask"] = mask
    return given


KINDS = ["image", "image masked", "prompt", "prompt padded", "prompt padded masked"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool_grid", [None, (3, 2)])
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_plain(grid: tuple[int, int], pool_grid: tuple[int, int] | None, kind: str) -> None:
    modules = random_modules(pool_grid=pool_grid)
    scorer = fold(modules)
    height, width = modules.projector.output_grid(grid)
    given = inputs(kind, height * width)
    features = features_for(grid)
    plain = modules(features, grid, **given)
    assert plain.level_logits.std() > 0.1  # the comparison is about something
    assert difference(scorer(features, grid, **given), plain) <= TOLERANCE


@pytest.mark.parametrize("seed", range(5))
def test_equals_plain_for_other_weights_and_the_papers_depth(seed: int) -> None:
    modules = random_modules(seed=seed, depth=3, num_tokens=1 + seed * 16, num_heads=8)
    features = features_for((6, 5))
    for kind in KINDS:
        given = inputs(kind, 30)
        assert (
            difference(fold(modules)(features, (6, 5), **given), modules(features, (6, 5), **given))
            <= TOLERANCE
        )


def test_is_an_identity_and_not_an_approximation() -> None:
    """In float64 only the float32 softmax and outputs are left to round."""
    modules = random_modules().double()
    features = features_for((5, 4)).double()
    for kind in KINDS:
        given = inputs(kind, 20)
        if "prompt" in kind:
            given["prompt_embeddings"] = given["prompt_embeddings"].double()
        assert (
            difference(fold(modules)(features, (5, 4), **given), modules(features, (5, 4), **given)) <= 1e-6
        )


def test_moves_with_its_modules() -> None:
    modules = random_modules()
    plain = modules(features_for((3, 4)), (3, 4))
    scorer = fold(modules).to(torch.float64)
    assert scorer.patch_keys.dtype == torch.float64
    assert difference(scorer(features_for((3, 4)).double(), (3, 4)), plain) <= TOLERANCE


def test_bfloat16_stays_near_float32() -> None:
    modules = random_modules()
    features = features_for((4, 4))
    plain = modules(features, (4, 4)).level_logits.softmax(dim=-1)
    out = fold(modules.bfloat16())(features.bfloat16(), (4, 4))
    assert {tensor.dtype for tensor in out} == {torch.float32}
    assert (out.level_logits.softmax(dim=-1) - plain).abs().max() < 0.05


def test_survives_a_pickle() -> None:
    scorer = fold(random_modules())
    copied = pickle.loads(pickle.dumps(scorer))  # noqa: S301
    features = features_for((3, 4))
    assert difference(copied(features, (3, 4)), scorer(features, (3, 4))) == 0


def test_shares_the_weights_and_adds_nothing_to_the_state_dict() -> None:
    modules = random_modules()
    scorer = fold(modules)
    assert {p.data_ptr() for p in scorer.parameters()} == {p.data_ptr() for p in modules.parameters()}
    assert {name.removeprefix("safety.") for name in scorer.state_dict()} == set(modules.state_dict())


def test_no_linear_but_the_projectors_first_sees_a_patch() -> None:
    modules = random_modules()
    scorer = fold(modules)
    seen: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str) -> Any:
        return lambda _module, args: seen.append((name, tuple(args[0].shape)))

    for name, module in modules.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(record(name))
    scorer(features_for((4, 4)), (4, 4), prompt_embeddings=prompts())
    assert [name for name, shape in seen if len(shape) == 3] == ["projector.expand"]


def test_gives_no_gradients() -> None:
    assert not fold(random_modules())(features_for((2, 2)), (2, 2)).level_logits.requires_grad


def test_takes_an_empty_batch_and_refuses_what_plain_refuses() -> None:
    scorer = fold(random_modules())
    assert scorer(features_for((2, 2), batch=0), (2, 2)).level_logits.shape == (0, 4)
    with pytest.raises(ValueError, match="without prompt_embeddings"):
        scorer(features_for((2, 2)), (2, 2), prompt_mask=torch.ones(3, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="patches for a grid"):
        scorer(features_for((2, 2)), (2, 3))
    with pytest.raises(ValueError, match="feature_mask must be bool"):
        scorer(features_for((2, 2)), (2, 2), feature_mask=torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="built for images alone"):
        fold(random_modules(text_dim=None))(features_for((2, 2)), (2, 2), prompt_embeddings=prompts())


def names() -> list[str]:
    return [name for name, _ in random_modules().named_parameters()]


def broken(name: str) -> SafetyModules:
    modules = random_modules()
    with torch.no_grad():
        modules.get_parameter(name).view(-1)[0] = torch.nan
    return modules


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("kind", ["image", "prompt"])
def test_a_nan_weight_is_a_nan_score_wherever_plain_has_one(name: str, kind: str) -> None:
    modules = broken(name)
    given = inputs(kind, 12)
    plain = modules(features_for((3, 4)), (3, 4), **given)
    folded = fold(modules)(features_for((3, 4)), (3, 4), **given)
    for left, right in zip(folded, plain, strict=True):
        assert torch.equal(left.isnan(), right.isnan())
    unused = {"tokens.prompt"} if kind == "prompt" else {"tokens.prompt", "head.prompt.weight"}
    assert any(tensor.isnan().any() for tensor in plain) == (name not in unused)


def test_nan_features_are_a_nan_score() -> None:
    features = features_for((3, 4))
    features[1, 0, 0] = torch.nan
    out = fold(random_modules())(features, (3, 4))
    assert out.level_logits.isnan().all(dim=-1).tolist() == [False, True, False]


def test_must_be_built_again_after_the_weights_change() -> None:
    """The documented limit: if this ever fails, the docstring may promise more."""
    modules = random_modules()
    scorer = fold(modules)
    before = copy.deepcopy(modules)
    with torch.no_grad():
        modules.head.query_vector.mul_(-3)
    features = features_for((3, 4))
    assert difference(before(features, (3, 4)), modules(features, (3, 4))) > 0.01
    assert difference(scorer(features, (3, 4)), modules(features, (3, 4))) > 0.01
    assert difference(fold(modules)(features, (3, 4)), modules(features, (3, 4))) <= TOLERANCE
