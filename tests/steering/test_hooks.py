"""Steering in every family: what is changed and what is not, however the LLM is run, and nothing left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from safevlm.errors import BackboneError
from safevlm.steering import Batch, MeanDifference, VLMGuard, steered
from safevlm.steering.batch import last_positions
from safevlm.steering.states import prefill_states
from tests.families import PROMPTS, family_backbone
from tests.steering.builders import (
    METHODS,
    batch_of,
    direction_of,
    generated,
    hooks_on,
    logits,
    method_of,
    recorded,
)
from tests.tiny import tiny_backbone

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def tiny():
    return tiny_backbone()


def with_gates_closed(backbone, batch):
    """VLM-Guard whose direction points away from every prompt's text pass."""
    direction = direction_of(backbone)
    texts = prefill_states(backbone, batch.texts(backbone, batch.with_images).inputs)
    for layer, states in enumerate(texts):
        # orthogonal to all of the few states, then a step down along their mean
        mean = states.mean(0)
        main = (
            -torch.linalg.lstsq(states.double(), torch.ones(len(states), 1).double()).solution[:, 0].float()
        )
        assert (states @ main < 0).all(), mean
        rows = torch.linalg.qr(torch.cat([main[:, None], direction.rows[layer].T[:, 1:]], dim=1))[0].T
        direction.rows[layer][:] = rows * (rows[0] @ main).sign()
    return VLMGuard(direction, base="raw")


@pytest.mark.parametrize("name", METHODS)
def test_steering_changes_logits_and_leaves_nothing_behind(backbone, name):
    batch = batch_of(backbone)
    plain, before = (
        logits(backbone, batch),
        hooks_on(backbone),
    )  # transformers puts its own with the first run
    with steered(backbone, batch, method_of(name, backbone)):
        changed = logits(backbone, batch)
    assert not torch.allclose(changed, plain)
    assert changed.isfinite().all()
    assert torch.equal(logits(backbone, batch), plain)
    assert hooks_on(backbone) == before


@pytest.mark.parametrize("name", METHODS)
def test_strength_0_is_no_hook(backbone, name):
    batch = batch_of(backbone)
    plain, before = (
        logits(backbone, batch),
        hooks_on(backbone),
    )  # transformers puts its own with the first run
    with steered(backbone, batch, method_of(name, backbone, strength=0.0)):
        assert hooks_on(backbone) == before
        assert torch.equal(logits(backbone, batch), plain)


def test_closed_gates_and_the_raw_base_change_nothing(backbone):
    batch = batch_of(backbone)
    plain = logits(backbone, batch)
    with steered(backbone, batch, with_gates_closed(backbone, batch)):
        assert torch.equal(logits(backbone, batch), plain)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("positions", ["all", "last"])
def test_batches_items_beams_and_no_cache_agree(backbone, name, positions):
    batch = batch_of(backbone)
    method = method_of(name, backbone, positions=positions)
    with steered(backbone, batch, method):
        together, whole = logits(backbone, batch), generated(backbone, batch)
        assert torch.equal(generated(backbone, batch, use_cache=False), whole)
        beams = generated(backbone, batch, num_beams=2, num_return_sequences=2)
        assert torch.equal(
            generated(backbone, batch, num_beams=2, num_return_sequences=2, use_cache=False), beams
        )
    for row in range(len(PROMPTS)):
        one = batch_of(backbone, [row])
        with steered(backbone, one, method):
            torch.testing.assert_close(logits(backbone, one)[0], together[row], **CLOSE)


def test_prefill_alone_and_the_last_position_alone_change_what_they_say(backbone):
    batch = batch_of(backbone)
    length = batch.mask.shape[1]
    for positions in ("all", "last"):
        for steps in ("every", "prefill"):
            method = method_of("projection", backbone, positions=positions, steps=steps, layers=[0])
            with recorded(backbone) as before, steered(backbone, batch, method), recorded(backbone) as after:
                generated(backbone, batch)
            differ = [(one != other).any(-1) for one, other in zip(before[0], after[0], strict=True)]
            expected = batch.mask.clone()
            if positions == "last":
                expected[:, : length - 1] = False
            assert torch.equal(differ[0], expected)
            assert len(differ) > 1
            assert all(bool(step.all()) == (steps == "every") for step in differ[1:])


def test_images_move_positions_and_the_last_token_is_the_same(backbone):
    """The prompt with its image and its text pass end with the same token of the chat template, at other positions."""
    batch = batch_of(backbone)
    text = batch.texts(backbone, batch.with_images)
    for one, other in ((batch, text), (text, batch)):
        ends = one.inputs.tensors["input_ids"][torch.arange(3), last_positions(one.mask)]
        others = other.inputs.tensors["input_ids"][torch.arange(3), last_positions(other.mask)]
        assert torch.equal(ends, others)
    assert (batch.mask.sum(1) > text.mask.sum(1)).all()


def test_the_teacher_is_one_text_pass_for_the_whole_request(backbone):
    batch = batch_of(backbone)
    text = batch.texts(backbone, batch.with_images)
    method = method_of("vlm_guard", backbone)
    with recorded(backbone) as runs:
        with steered(backbone, batch, method):
            generated(backbone, batch, max_new_tokens=3, min_new_tokens=3)
    sizes = [tuple(run.shape[:2]) for run in runs[0]]
    assert sizes == [tuple(text.mask.shape), tuple(batch.mask.shape), (3, 1), (3, 1)]


def test_prompts_without_images_stay_as_they_are_bit_for_bit(backbone):
    prompts, images = [*PROMPTS, "Only text."], [*(list(own) for own in batch_of(backbone).images), []]
    batch = Batch.encode(backbone, prompts, images)
    plain = logits(backbone, batch)
    for name in ("vlm_guard", "raw", "cmrm", "cmrm_sample"):
        with steered(backbone, batch, method_of(name, backbone)):
            changed = logits(backbone, batch)
        assert torch.equal(changed[3], plain[3])
        assert not torch.equal(changed[:3], plain[:3])
    text = Batch.encode(backbone, ["Only text."])
    with steered(backbone, text, method_of("vlm_guard", backbone)):
        assert torch.equal(logits(backbone, text), logits(backbone, text))


def test_half_precision_is_near(backbone):
    """bfloat16 has 8 bits of mantissa: 2^-8 relative a rounding, and a few of them in two layers."""
    kind, batch = backbone.model_type, batch_of(backbone)
    half = family_backbone(kind)
    half.model.to(torch.bfloat16)
    for name in ("vlm_guard", "mean_difference"):
        method = method_of(name, backbone, layers=[0])
        with recorded(backbone) as before, steered(backbone, batch, method), recorded(backbone) as after:
            logits(backbone, batch)
        with recorded(half) as low, steered(half, batch, method), recorded(half) as changed:
            logits(half, batch)
        runs = -1  # the last: VLM-Guard's text pass comes before
        delta, low_delta = after[0][runs] - before[0][runs], changed[0][runs].float() - low[0][runs].float()
        assert changed[0][runs].dtype == torch.bfloat16
        scale = after[0][runs].abs().max() + before[0][runs].abs().max()
        assert (low_delta - delta)[batch.mask].abs().max() <= 2**-4 * scale


def test_no_hook_is_left_after_an_exception(tiny):
    batch = batch_of(tiny)
    logits(tiny, batch)  # transformers puts its own hooks with the first run
    before = hooks_on(tiny)

    def fail():
        with steered(tiny, batch, method_of("vlm_guard", tiny)):
            assert hooks_on(tiny) == before + 2
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        fail()
    assert hooks_on(tiny) == before
    other = method_of("mean_difference", family_backbone("paligemma"))
    with pytest.raises(Exception, match="another LLM"), steered(tiny, batch, method_of("raw", tiny), other):
        pass
    assert hooks_on(tiny) == before
    with pytest.raises(BackboneError, match="rows"), steered(tiny, batch, method_of("raw", tiny)):
        logits(tiny, batch_of(tiny, [0, 1]))
    assert hooks_on(tiny) == before


def test_nested_blocks_act_in_turn_and_a_text_pass_sees_neither(tiny):
    batch = batch_of(tiny)
    one, other = method_of("mean_difference", tiny), method_of("vlm_guard", tiny)
    with steered(tiny, batch, one, other):
        together = logits(tiny, batch)
    with steered(tiny, batch, one):
        outer = logits(tiny, batch)
        with steered(tiny, batch, other):
            assert torch.equal(logits(tiny, batch), together)
        assert torch.equal(logits(tiny, batch), outer)
    assert not torch.equal(together, outer)


def test_threads_do_not_see_each_others_hooks(tiny):
    batch = batch_of(tiny)
    plain = logits(tiny, batch)
    with ThreadPoolExecutor(1) as pool, steered(tiny, batch, method_of("vlm_guard", tiny)):
        changed = logits(tiny, batch)
        assert torch.equal(pool.submit(logits, tiny, batch).result(), plain)
        assert torch.equal(logits(tiny, batch), changed)
    assert not torch.equal(changed, plain)


def test_a_block_that_steered_nothing_is_an_error(tiny):
    with pytest.raises(BackboneError, match="never steered"):
        with steered(tiny, batch_of(tiny), method_of("astra", tiny)):
            pass
    with pytest.raises(BackboneError, match="prefill_chunk_size"):
        with steered(tiny, batch_of(tiny), method_of("mean_difference", tiny)):
            generated(tiny, batch_of(tiny), prefill_chunk_size=8)


def test_rows_have_gates_of_their_own(tiny):
    """A threshold between two prompts' projections: one is steered, the other stays as it is."""
    batch = batch_of(tiny, [0, 1])
    plain = logits(tiny, batch)
    theta = method_of("mean_difference", tiny).theta
    seen = prefill_states(tiny, batch.inputs)[0] @ theta.values[0]
    method = MeanDifference(theta, {0: float(seen.mean())}, layers=[0])
    with steered(tiny, batch, method):
        changed = logits(tiny, batch)
    low, high = int(seen.argmin()), int(seen.argmax())
    assert torch.equal(changed[low], plain[low])
    assert not torch.equal(changed[high], plain[high])
    with steered(tiny, batch, method):
        beams = generated(tiny, batch, num_beams=3, num_return_sequences=3)
    assert torch.equal(
        beams[3 * low : 3 * low + 3],
        generated(tiny, batch, num_beams=3, num_return_sequences=3)[3 * low : 3 * low + 3],
    )
