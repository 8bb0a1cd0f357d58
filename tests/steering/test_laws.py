"""Identities of the methods' formulas on random states, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safevlm.errors import CheckpointError, UndecidedGateError
from safevlm.steering import (
    CMRM,
    Astra,
    LayerVectors,
    MeanDifference,
    Projection,
    VLMGuard,
    fit_centre,
    steered,
)
from safevlm.steering.batch import last_positions
from safevlm.steering.hooks import Step
from safevlm.steering.states import last_states
from tests.families import PROMPTS, family_backbone
from tests.steering.builders import (
    METHODS,
    batch_of,
    direction_of,
    generated,
    images_of,
    logits,
    method_of,
)

WIDTH = 32
PREFILL = Step(1, torch.tensor([4, 4, 4]))


@pytest.fixture(scope="module")
def backbone():
    return family_backbone("llava")


def drawn(seed, *size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def change_of(method, backbone, layer=0):
    """The change of one layer for the tests' batch."""
    return method.plan(backbone, batch_of(backbone)).changes[layer]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), rank=st.integers(1, 6))
def test_projection_is_idempotent_and_removes_the_span(backbone, seed, rank):
    direction = direction_of(backbone, rank=rank, seed=seed)
    change = change_of(Projection(direction), backbone)
    states = 10 * drawn(seed, 3, 5, WIDTH)
    once = states + change(states, PREFILL)
    assert (once @ direction.rows[0].T).abs().max() < 1e-4
    torch.testing.assert_close(once + change(once, PREFILL), once, rtol=0, atol=1e-4)
    across = states - states @ direction.rows[0].T @ direction.rows[0]
    torch.testing.assert_close(once, across, rtol=0, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), alpha=st.floats(0.25, 8))
def test_vlm_guard_puts_the_teachers_coordinates_in_the_place_of_the_prompts(backbone, seed, alpha):
    """With both bases; the rest of a state, across the rows, stays."""
    direction = direction_of(backbone, seed=seed)
    rows, batch = direction.rows[0], batch_of(backbone)
    states = drawn(seed, 3, 5, WIDTH)
    text = last_states(backbone, PROMPTS)[0]
    put = alpha * (text @ rows.T) * (text @ rows[0] > 0)[:, None]
    for base in ("projected", "raw"):
        method = VLMGuard(direction, alpha=alpha, base=base)
        changed = states + method.plan(backbone, batch).changes[0](states, PREFILL)
        own = 0 if base == "projected" else states @ rows.T
        torch.testing.assert_close(
            changed @ rows.T, (own + put[:, None]).expand(3, 5, -1), rtol=1e-3, atol=1e-3
        )
        across = [s - s @ rows.T @ rows for s in (changed, states)]
        torch.testing.assert_close(*across, rtol=1e-3, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), strength=st.floats(0.1, 4))
def test_astra_pushes_along_v_alone_and_only_what_lies_along_it(backbone, seed, strength):
    direction = direction_of(backbone, "jailbroken_behaviour", seed=seed)
    centre = LayerVectors({0: drawn(seed + 1, WIDTH)}, backbone.language_fingerprint)
    change = change_of(Astra(direction, centre, [0]), backbone)
    states, main = drawn(seed, 3, 5, WIDTH), direction.rows[0][0]
    added = strength * change(states, PREFILL)
    centred = states - centre.values[0]
    cosine = (centred @ main) / centred.norm(dim=-1)
    expected = -strength * states.norm(dim=-1) * cosine.clamp_min(0)
    torch.testing.assert_close(added, expected[..., None] * main, rtol=1e-4, atol=1e-4)
    assert torch.equal(added[cosine <= 0], torch.zeros_like(added[cosine <= 0]))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_mean_difference_adds_theta_where_the_last_token_is_above_the_threshold(backbone, seed):
    theta, states = drawn(seed, WIDTH), drawn(seed + 1, 3, 5, WIDTH)
    ends = states[:, 4] @ theta
    threshold = float(ends.sort().values[:2].mean())
    method = MeanDifference(LayerVectors({0: theta}, backbone.language_fingerprint), {0: threshold})
    change = change_of(method, backbone)
    assert torch.equal(change(states, PREFILL), ((ends > threshold)[:, None, None] * theta))
    later = drawn(seed + 2, 3, 1, WIDTH)  # decoding keeps the prompt's gates
    assert torch.equal(change(later, Step(1, None)), ((ends > threshold)[:, None, None] * theta))


def test_fitted_vectors_are_differences_of_means(backbone):
    harmful, harmless = PROMPTS, ["Yes", "No"]
    bad, good = (last_states(backbone, prompts)[1].numpy().mean(0) for prompts in (harmful, harmless))
    method = MeanDifference.fit(backbone, harmful, harmless, layers=[1])
    torch.testing.assert_close(method.theta.values[1], torch.tensor(bad - good))
    assert method.thresholds[1] == pytest.approx((bad @ (bad - good) + good @ (bad - good)) / 2, rel=1e-4)
    image = images_of()[0][0]
    shown = last_states(backbone, PROMPTS, image=image).mean(1) - last_states(backbone, PROMPTS).mean(1)
    shift = CMRM.fit(backbone, PROMPTS, image=image).shift
    torch.testing.assert_close(torch.stack(list(shift.values.values())), shown)
    torch.testing.assert_close(
        fit_centre(backbone, PROMPTS).values[0], last_states(backbone, PROMPTS)[0].mean(0)
    )


def test_cmrm_of_a_sample_takes_the_image_out_of_the_last_state(backbone):
    """With the prompt's own image as the blank one, and one layer: what is left is the text pass's state."""
    batch = batch_of(backbone, [0])
    method = CMRM(image=images_of()[0][0], layers=[0])
    change = method.plan(backbone, batch).changes[0]
    shown = last_states(backbone, PROMPTS[:1], image=images_of()[0][0])[0]
    text = last_states(backbone, PROMPTS[:1])[0]
    torch.testing.assert_close(shown + change(shown[:, None], PREFILL)[:, 0], text, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=4))
def test_the_last_position_is_the_last_that_is_not_padding(rows):
    found = last_positions(torch.tensor(rows)).tolist()
    assert found == [max(i for i, inside in enumerate(row) if inside) for row in rows]


def test_the_two_axes_cannot_be_mixed(backbone):
    batch = batch_of(backbone)
    harmful, jailbroken = direction_of(backbone), direction_of(backbone, "jailbroken_behaviour")
    for method in (VLMGuard(jailbroken), Projection(jailbroken), Astra(harmful)):
        with pytest.raises(CheckpointError, match="axis"), steered(backbone, batch, method):
            pass


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cmrm_sample"])
def test_another_model_is_refused(backbone, name):
    other = family_backbone("llava", seed=1)
    with (
        pytest.raises(CheckpointError, match="LLM"),
        steered(other, batch_of(other), method_of(name, backbone)),
    ):
        pass


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("layers", [[7], [-1], [], "best"])
def test_layers_out_of_range_are_refused(backbone, name, layers):
    with pytest.raises(ValueError, match="layer"):
        method_of(name, backbone, layers=layers).check(backbone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "Projection"),
        ({"alpha": float("nan")}, "alpha"),
        ({"strength": -1.0}, "strength"),
        ({"strength": float("inf")}, "strength"),
        ({"positions": "first"}, "positions"),
        ({"steps": "some"}, "steps"),
        ({"base": "none"}, "base"),
        ({"rank": 5}, "rank"),
        ({"rank": 0}, "rank"),
    ],
)
def test_parameters_out_of_range_are_refused(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        VLMGuard(direction_of(backbone), **options)


def test_the_middle_third_and_the_chosen_layers(backbone):
    from safevlm.steering.layers import pick_layers

    class Deep:
        """A decoder of 32 layers."""

        decoder_layers = range(32)

    assert pick_layers("middle", Deep()) == tuple(range(10, 22))
    assert pick_layers("all", Deep()) == tuple(range(32))
    assert pick_layers("chosen", backbone, direction_of(backbone)) == (0, 1)
    assert pick_layers([1, 0, 1], backbone) == (0, 1)


@pytest.mark.parametrize("name", METHODS)
def test_states_that_are_not_finite_are_undecided_for_their_prompt_alone(name):
    """One prompt has a token whose embedding is NaN."""
    backbone = family_backbone("llava")
    token = backbone.tokenizer("W", add_special_tokens=False)["input_ids"][0]
    assert [("W" in prompt) for prompt in PROMPTS] == [False, True, False]
    method = method_of(name, backbone)  # reads the fingerprint, which is that of the weights before
    with torch.no_grad():
        backbone.input_embeddings.weight[token] = float("nan")
    batch = batch_of(backbone)
    with pytest.raises(UndecidedGateError, match="not finite") as caught, steered(backbone, batch, method):
        generated(backbone, batch)
    assert caught.value.rows == (1,)
    rest = batch_of(backbone, [0, 2])
    with steered(backbone, rest, method):
        assert logits(backbone, rest).isfinite().all()


def test_vectors_are_checked():
    for values in (
        {},
        {0: torch.zeros(2, 2)},
        {0: torch.zeros(2).double()},
        {0: torch.tensor([float("nan")])},
    ):
        with pytest.raises(ValueError, match="vector"):
            LayerVectors(values, ())
