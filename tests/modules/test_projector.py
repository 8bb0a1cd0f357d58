from __future__ import annotations

import pytest
import torch
from torch import nn

from safevlm.modules import SafetyProjector


@pytest.mark.parametrize("grid", [(4, 4), (2, 6), (5, 3), (1, 1)])
@pytest.mark.parametrize("pool_grid", [None, (3, 2)])
def test_any_grid_in_own_or_pooled_grid_out(grid: tuple[int, int], pool_grid: tuple[int, int] | None) -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16, depth=1, pool_grid=pool_grid)
    height, width = projector.output_grid(grid)
    assert (height, width) == (pool_grid or grid)
    out = projector(torch.randn(2, grid[0] * grid[1], 12), grid)
    assert out.shape == (2, height * width, 20)
    assert out.isfinite().all()


def test_one_projector_takes_grids_that_change_and_an_empty_batch() -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16, depth=1)
    assert projector(torch.randn(2, 12, 12), (3, 4)).shape == (2, 12, 20)
    assert projector(torch.randn(1, 10, 12), (5, 2)).shape == (1, 10, 20)
    assert projector(torch.randn(0, 10, 12), (5, 2)).shape == (0, 10, 20)


def test_grid_is_height_then_width_and_patches_run_row_by_row() -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16, depth=1).double()
    features = torch.randn(1, 15, 12, dtype=torch.float64)
    maps = features.reshape(1, 3, 5, 12).permute(0, 3, 1, 2)
    maps = projector.decode(projector.encode(maps))
    expected = projector.last(projector.act(projector.expand(maps.permute(0, 2, 3, 1).reshape(1, 15, -1))))
    torch.testing.assert_close(projector(features, (3, 5)), expected)
    assert not torch.allclose(projector(features, (5, 3)), expected)


def test_stages_are_the_papers() -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16)
    assert len(list(projector.encode.children())) == len(list(projector.decode.children())) == 3
    assert not any(isinstance(module, nn.ReLU | nn.BatchNorm2d) for module in projector.modules())
    assert any(isinstance(module, nn.SiLU) for module in projector.encode.modules())
    assert any(isinstance(module, nn.LayerNorm) for module in projector.encode.modules())


def test_hidden_is_all_before_the_last_linear() -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16, depth=1)
    features = torch.randn(2, 6, 12)
    torch.testing.assert_close(
        projector.last(projector.hidden(features, (2, 3))), projector(features, (2, 3)), rtol=0, atol=0
    )


@pytest.mark.parametrize("grid", [(4, 4), (5, 3), (0, 0), (-3, -4)])
def test_a_grid_that_is_not_the_features_raises(grid: tuple[int, int]) -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16, depth=1)
    features = torch.randn(1, 17 if grid == (4, 4) else 12, 12)
    with pytest.raises(ValueError, match=r"patches for a grid of .* pass the grid"):
        projector(features, grid)


def test_features_of_another_tower_raise() -> None:
    projector = SafetyProjector(12, 20, hidden_dim=16, depth=1)
    for features in (torch.randn(1, 4, 13), torch.randn(4, 12)):
        with pytest.raises(ValueError, match=r"\(batch, patches, 12\), got"):
            projector(features, (2, 2))


@pytest.mark.parametrize(
    "sizes",
    [{"hidden_dim": 0}, {"depth": 0}, {"pool_grid": (0, 2)}, {"hidden_dim": 2.5}, {"depth": True}],
)
def test_sizes_that_are_not_positive_integers_raise(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be an integer >= 1"):
        SafetyProjector(12, 20, **sizes)
