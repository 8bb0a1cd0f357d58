"""Views of an image: the riskiest counts, what is not a number counts most, and heatmaps lie in the image's frame."""

from __future__ import annotations

import pytest
import torch

from safevlm import Policy, Taxonomy
from safevlm.backbone import WHOLE, Views
from safevlm.types import Verdict
from safevlm.viewing import ViewOutput, head_output
from tests.tiny import tiny_guard

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def output(levels, attention=None, *, owners=(0, 0, 1), boxes=(LEFT, RIGHT, WHOLE)):
    features = [(torch.zeros(4, 2), (2, 2))] * len(owners)
    views = Views.gather(features, owners, boxes)
    maps = tuple(torch.full((4,), 0.1) for _ in owners) if attention is None else attention
    return ViewOutput(
        torch.tensor(levels), torch.arange(float(len(owners)))[:, None], maps, ((2, 2),) * len(owners), views
    )


def test_an_image_has_the_logits_of_its_riskiest_view():
    found = output([[3.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    levels, categories = found.logits()
    assert levels.tolist() == [[0.0, 3.0], [1.0, 0.0]]
    assert categories[:, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("place", [0, 1])
def test_a_view_that_is_not_a_number_is_the_riskiest(place):
    levels = [[3.0, 0.0], [0.0, 9.0], [1.0, 0.0]]
    levels[place] = [float("nan")] * 2
    assert output(levels).logits()[0][0].isnan().all()


def test_heatmaps_lie_in_the_images_frame():
    right = torch.tensor([0.0, 0.4, 0.0, 0.0])
    found = output([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], (torch.tensor([0.2, 0.0, 0.0, 0.0]), right, right))
    both, whole = found.heatmaps()
    assert both.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    assert whole.tolist() == [[0, 1], [0, 0]]


def test_a_padded_frame_is_cut_to_the_image():
    padded = (0.0, -0.5, 1.0, 1.5)
    rows = torch.tensor([0.1, 0.1, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1])
    views = Views.gather([(torch.zeros(8, 2), (4, 2))], [0], [padded])
    found = ViewOutput(torch.zeros(1, 2), torch.zeros(1, 1), (rows,), ((4, 2),), views)
    assert found.heatmaps()[0].tolist() == [[1, 1], [0.5, 0.5]]


def test_views_of_different_grids_score_as_each_alone():
    guard = tiny_guard()
    torch.manual_seed(3)
    parts = [(torch.randn(h * w, 32), (h, w)) for h, w in ((2, 3), (4, 4), (2, 3), (3, 2))]
    views = Views.gather(parts, [0, 0, 1, 2], [WHOLE] * 4)
    with torch.no_grad():
        together = head_output(guard.safety, views)
        for number, (features, grid) in enumerate(parts):
            one = head_output(guard.safety, Views.of_one_grid(features[None], grid, [0]))
            torch.testing.assert_close(together.level_logits[number], one.level_logits[0])
            torch.testing.assert_close(together.attention[number], one.attention[0])
            assert together.grids[number] == grid
    for (features, grid), (own, own_grid) in zip(views, parts, strict=True):
        assert torch.equal(features, own)
        assert grid == own_grid


def two_views(scores, category):
    """A scorer, and what its head gives for one image with two views of known P(unsafe) and category."""
    guard = tiny_guard()
    taxonomy = guard.config.taxonomy
    levels = torch.full((2, len(taxonomy.levels)), -30.0)
    levels[:, 0], levels[:, 1] = torch.tensor([1 - s for s in scores]).log(), torch.tensor(scores).log()
    categories = torch.full((2, len(taxonomy.category_names)), -30.0)
    for row, name in enumerate(category):
        categories[row, taxonomy.category_names.index(name)] = 0.0
    views = Views.gather([(torch.zeros(4, 2), (2, 2))] * 2, (0, 0), (LEFT, RIGHT))
    found = ViewOutput(levels, categories, (torch.full((4,), 0.1),) * 2, ((2, 2),) * 2, views)
    return guard.scorer, found


def test_a_view_that_the_policy_lets_through_hides_no_other():
    off, on = Taxonomy.preset("safevlm").risky_categories[:2]
    scorer, output = two_views((0.9, 0.8), (off, on))
    policy = Policy(scorer.config.taxonomy, off=frozenset({off}))
    (found,) = scorer.assess_output(output, policy=policy)
    assert found.verdict is Verdict.UNSAFE
    assert found.category == on
    assert found.score == pytest.approx(0.8, abs=1e-6)


def test_the_score_is_the_highest_of_the_flagged_views():
    name = Taxonomy.preset("safevlm").risky_categories[0]
    scorer, output = two_views((0.7, 0.95), (name, name))
    (found,) = scorer.assess_output(output)
    assert found.score == pytest.approx(0.95, abs=1e-6)
