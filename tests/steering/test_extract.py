"""Fitting a direction: SVD with an orientation, separation on held-out pairs, and what cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safevlm.backbone import FAMILIES
from safevlm.errors import BackboneError
from safevlm.evals.metrics import auroc as auroc_with_interval
from safevlm.labelled import PromptPairs
from safevlm.steering import Direction, fit_direction, last_states
from safevlm.steering.extract import auroc, choose_layers, oriented, principal_rows, separations
from tests.families import family_backbone
from tests.tiny import tiny_backbone

USUAL = ("llava", "qwen2_5_vl")
FAMILY = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in sorted(FAMILIES)]
FEW = settings(max_examples=50, deadline=None)
SIZES = st.tuples(st.integers(1, 4), st.integers(5, 12), st.integers(5, 16), st.integers(0, 2**16))


def pairs_of(count: int) -> PromptPairs:
    return PromptPairs(
        tuple(f"How to break into house {number * number}?" for number in range(count)),
        tuple(f"How to decorate {number} houses?" for number in range(count)),
    )


def differences_of(pairs: int, width: int, seed: int) -> torch.Tensor:
    """Random differences with a common part, so that the main direction has a side."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pairs, width, generator=generator) + 2 * torch.randn(width, generator=generator)


@FEW
@given(SIZES)
def test_rows_are_orthonormal_and_positive_is_harmful(sizes):
    rank, pairs, width, seed = sizes
    differences = differences_of(pairs, width, seed)
    rows, values = principal_rows(differences, rank=rank, layer=0)
    assert rows.shape == (rank, width)
    assert rows.dtype == values.dtype == torch.float32
    torch.testing.assert_close(rows @ rows.T, torch.eye(rank), atol=1e-5, rtol=0)
    assert bool((differences @ rows.T).mean(0)[0] > 0)
    assert bool((values.diff() <= 0).all())


@FEW
@given(SIZES)
def test_rows_span_what_numpy_finds_in_the_uncentred_differences(sizes):
    rank, pairs, width, seed = sizes
    differences = differences_of(pairs, width, seed)
    rows, values = principal_rows(differences, rank=rank, layer=0)
    # eigenvectors of A^T A, another way to the right singular vectors
    matrix = differences.numpy().astype(np.float64)
    squares, vectors = np.linalg.eigh(matrix.T @ matrix)
    top = vectors[:, ::-1][:, :rank]
    np.testing.assert_allclose(values.numpy() ** 2, squares[::-1][:rank], rtol=1e-4)
    gap = min(squares[::-1][:rank] - np.append(squares[::-1], 0)[1 : rank + 1])
    if gap > 1e-3 * squares[-1]:  # equal values leave their vectors open
        np.testing.assert_allclose(np.abs(np.sum(rows.numpy() * top.T, axis=1)), 1, atol=1e-3)


@FEW
@given(SIZES, st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_orientation_does_not_depend_on_the_sign_of_the_svd(sizes, flips):
    rank, pairs, width, seed = sizes
    differences = differences_of(pairs, width, seed).double()
    vectors = torch.linalg.svd(differences, full_matrices=False).Vh[:rank]
    signs = torch.tensor([-1.0 if flip else 1.0 for flip in flips[:rank]]).double()[:, None]
    assert torch.equal(oriented(vectors, differences), oriented(vectors * signs, differences))


@FEW
@given(SIZES)
def test_the_other_label_turns_the_rows_around(sizes):
    rank, pairs, width, seed = sizes
    differences = differences_of(pairs, width, seed)
    one, _ = principal_rows(differences, rank=rank, layer=0)
    other, _ = principal_rows(-differences, rank=rank, layer=0)
    torch.testing.assert_close(one[0], -other[0], atol=1e-5, rtol=0)


@FEW
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=12), st.lists(st.integers(0, 5), min_size=2, max_size=12)
)
def test_auroc_is_that_of_the_evaluations(positive, negative):
    labels = [True] * len(positive) + [False] * len(negative)
    expected = auroc_with_interval([float(score) for score in (*positive, *negative)], labels).value
    found = auroc(torch.tensor(positive).float(), torch.tensor(negative).float())
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_best_third_of_the_layers_is_chosen_and_the_middle_among_equals():
    assert choose_layers(dict.fromkeys(range(9), 1.0)) == (3, 4, 5)
    assert choose_layers({0: 0.5, 1: 0.9, 2: 0.6, 3: 0.7, 4: 0.8, 5: 0.5}) == (1, 4)
    assert choose_layers({0: 0.5, 1: 0.6}) == (1,)
    assert choose_layers({0: 0.5}) == (0,)


@pytest.mark.parametrize("kind", FAMILY)
def test_every_family(kind, tmp_path):
    backbone = family_backbone(kind)
    fitted = fit_direction(backbone, pairs_of(8), rank=2)
    assert (fitted.pairs, fitted.held_out) == (6, 2)
    direction = fitted.direction
    direction.check_fits(backbone)
    assert set(direction.rows) == set(direction.separation) == set(fitted.with_image) == {0, 1}
    direction.save(tmp_path)
    loaded = Direction.load(tmp_path)
    loaded.check_fits(backbone)
    assert all(torch.equal(direction.rows[layer], loaded.rows[layer]) for layer in direction.rows)


def test_the_direction_is_that_of_the_pairs_that_are_not_held_out():
    backbone, pairs = tiny_backbone(), pairs_of(12)
    direction = fit_direction(backbone, pairs, rank=2, seed=3).direction
    fitted, held_out = pairs.split(3, seed=3)
    difference = last_states(backbone, fitted.harmful) - last_states(backbone, fitted.harmless)
    for layer in range(2):
        rows, values = principal_rows(difference[layer], rank=2, layer=layer)
        torch.testing.assert_close(direction.rows[layer], rows, atol=1e-3, rtol=0)
        torch.testing.assert_close(direction.singular_values[layer], values)
    states = (last_states(backbone, held_out.harmful), last_states(backbone, held_out.harmless))
    assert direction.separation == separations(*states, direction.rows)
    assert direction.pairs_sha256 == pairs.sha256


def test_fitting_again_gives_the_same_and_another_seed_holds_others_out():
    backbone, pairs = tiny_backbone(), pairs_of(12)
    one, again, other = (fit_direction(backbone, pairs, seed=seed).direction for seed in (0, 0, 1))
    assert torch.equal(one.rows[0], again.rows[0])
    assert not torch.equal(one.rows[0], other.rows[0])


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (4, 4), (8, 0), (60, 33)])
def test_a_rank_without_enough_pairs_or_width(count, rank):
    with pytest.raises(ValueError, match=f"rank {rank} with {count} pairs"):
        fit_direction(tiny_backbone(), pairs_of(count), rank=rank)


def test_a_layer_in_which_nothing_differs():
    with pytest.raises(ValueError, match="layer 7: the states of the pairs differ in 0 directions"):
        principal_rows(torch.zeros(6, 8), rank=1, layer=7)
    with pytest.raises(ValueError, match="differ in 1 directions, fewer than the rank of 2"):
        principal_rows(torch.ones(6, 8), rank=2, layer=7)


def test_pairs_whose_labels_cancel_out():
    half = differences_of(3, 8, 0)
    with pytest.raises(ValueError, match="which prompts of the pairs are the harmful ones"):
        principal_rows(torch.cat([half, -half]), rank=1, layer=0)


def test_states_that_are_not_finite():
    backbone = tiny_backbone()
    next(backbone.decoder_layers[1].parameters()).data.fill_(torch.nan)
    with pytest.raises(
        ValueError, match=r"layer 1 has states that are not finite for 12 of 12 prompts.*float32"
    ):
        fit_direction(backbone, pairs_of(8))


def test_a_prompt_longer_than_the_context_is_named():
    pairs = pairs_of(8)
    long = PromptPairs((*pairs.harmful, "How to " + "x" * 600), (*pairs.harmless, "How to y?"))
    with pytest.raises(ValueError, match=r"the prompt How to x+… has \d+ tokens.*takes 512"):
        fit_direction(tiny_backbone(), long)


def test_a_decoder_without_layers(monkeypatch):
    backbone = tiny_backbone()

    def none(*_):
        raise BackboneError("its text decoder has no list of layers")

    monkeypatch.setattr(type(backbone.family), "decoder_layers", none)
    with pytest.raises(BackboneError, match="no list of layers"):
        fit_direction(backbone, pairs_of(8))
