"""Steering through the guard: alone, on top of the adapter, piece by piece, and where it cannot decide."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from safevlm.backbone import AnswerStreamer
from safevlm.errors import CheckpointError
from safevlm.steering import Batch, VLMGuard, steered
from safevlm.types import Action, Verdict
from tests.guard.policies import GREEDY, allow_all, hint_all
from tests.steering.builders import direction_of, method_of, recorded
from tests.tiny import picture, tiny_backbone

PROMPTS = ["What is this?", "Hi", "And these?"]
IMAGES = [picture(1), None, [picture(3), picture(4)]]


def texts(replies):
    return [reply.text for reply in replies]


def test_without_the_adapter_it_is_the_plain_backbone_steered(guard):
    method = method_of("vlm_guard", guard.backbone)
    batch = Batch.encode(guard.backbone, PROMPTS, [[picture(1)], [], [picture(3), picture(4)]])
    plain = tiny_backbone()
    with steered(plain, batch, method):
        made = plain.model.generate(**batch.inputs.tensors, **GREEDY)[:, batch.mask.shape[1] :]
    expected = [text.strip() for text in plain.tokenizer.batch_decode(made, skip_special_tokens=True)]
    with guard.disabled():
        unsteered = texts(guard.generate(IMAGES, PROMPTS, **GREEDY))
        assert texts(guard.generate(IMAGES, PROMPTS, steering=method, **GREEDY)) == expected
        with guard.steered(method):
            assert texts(guard.generate(IMAGES, PROMPTS, **GREEDY)) == expected
        assert texts(guard.generate(IMAGES, PROMPTS, **GREEDY)) == unsteered
    assert expected != unsteered
    assert expected[1] == unsteered[1]  # text alone is its own teacher


@pytest.mark.parametrize("name", ["vlm_guard", "mean_difference", "cmrm_sample"])
def test_on_top_of_the_adapter_batches_items_and_streams_agree(guard, name):
    method, policy = method_of(name, guard.backbone), hint_all(guard)
    batch = guard.generate(IMAGES, PROMPTS, policy=policy, steering=method, **GREEDY)
    single = [
        guard.generate([image], [prompt], policy=policy, steering=method, **GREEDY)[0]
        for image, prompt in zip(IMAGES, PROMPTS, strict=True)
    ]
    assert texts(batch) == texts(single)
    assert texts(batch) != texts(guard.generate(IMAGES, PROMPTS, policy=policy, **GREEDY))
    pieces = guard.stream(IMAGES[0], PROMPTS[0], policy=policy, steering=method, **GREEDY)
    assert "".join(pieces) == batch[0].text
    with guard.steered(method):
        assert "".join(guard.stream(IMAGES[0], PROMPTS[0], policy=policy, **GREEDY)) == batch[0].text
    assert batch[0].action is Action.HINT
    assert not any(layer._forward_hooks for layer in guard.backbone.decoder_layers)


def test_nested_blocks_and_the_argument_act_in_order(guard):
    one, other = method_of("mean_difference", guard.backbone), method_of("vlm_guard", guard.backbone)
    policy = allow_all(guard)
    with guard.steered(one):
        argument = texts(guard.generate(IMAGES, PROMPTS, policy=policy, steering=other, **GREEDY))
        with guard.steered(other), guard.steered(one):
            pass
        with guard.steered(other):
            assert texts(guard.generate(IMAGES, PROMPTS, policy=policy, **GREEDY)) == argument
        alone = texts(guard.generate(IMAGES, PROMPTS, policy=policy, **GREEDY))
    assert alone == texts(guard.generate(IMAGES, PROMPTS, policy=policy, steering=one, **GREEDY))
    assert alone != argument


def test_one_text_prefill_and_one_tower_pass_a_request(guard):
    seen, method = [], method_of("vlm_guard", guard.backbone)
    handle = guard.backbone.tower.module.embeddings.register_forward_hook(
        lambda _, args, __: seen.append(args[0].shape[0])
    )
    with recorded(guard.backbone) as runs:
        guard.generate(IMAGES, PROMPTS, policy=allow_all(guard), steering=method, **GREEDY)
    handle.remove()
    assert sum(seen) == 3
    prefills = [run for run in runs[0] if run.shape[1] > 1]
    assert [len(run) for run in prefills] == [2, 3]  # the text pass has the prompts with images alone


def test_a_method_of_another_model_is_refused_before_it_is_used(guard):
    method = VLMGuard(direction_of(tiny_backbone(seed=5)))
    with pytest.raises(CheckpointError, match="fit"), guard.steered(method):
        pass
    with pytest.raises(CheckpointError, match="fit"):
        guard.generate(IMAGES, PROMPTS, policy=allow_all(guard), steering=method, **GREEDY)
    assert guard._steering == ()


def spoiled(guard, name, text):
    """A method for the guard, whose LLM then gets NaN for a letter of one prompt."""
    method = method_of(name, guard.backbone)
    token = guard.backbone.tokenizer(text, add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        guard.backbone.input_embeddings.weight[token] = float("nan")
    return method


@pytest.mark.parametrize("name", ["vlm_guard", "mean_difference"])
def test_a_gate_that_cannot_be_computed_is_undecided_and_refused(guard, name):
    policy = allow_all(guard)
    method = method_of(name, guard.backbone)
    expected = guard.generate(IMAGES, PROMPTS, policy=policy, steering=method, **GREEDY)
    prompts = ["Zebra?", *PROMPTS[1:]]
    method = spoiled(guard, name, "Z")
    with guard.disabled():
        plain = guard.generate(IMAGES, prompts, policy=policy, steering=method, **GREEDY)
        pieces = list(guard.stream(IMAGES[0], prompts[0], policy=policy, steering=method, **GREEDY))
    guarded = guard.generate(IMAGES, prompts, policy=policy, steering=method, **GREEDY)
    assert pieces == [policy.refusal]
    for replies in (plain, guarded):
        assert replies[0].text == policy.refusal
        assert replies[0].action is Action.REFUSE
        assert replies[0].assessment.verdict is Verdict.UNDECIDED
        assert all(reply.action is Action.ALLOW for reply in replies[1:])
    assert "steering" in plain[0].assessment.reason
    assert texts(guarded)[1:] == texts(expected)[1:]
    assert not any(layer._forward_hooks for layer in guard.backbone.decoder_layers)


def test_a_policy_that_hints_at_the_undecided_answers_without_steering(guard):
    """What overflows cannot be put into a state; the hinted answer has nothing of it."""
    policy = replace(allow_all(guard), undecided=Action.HINT)
    method = method_of("mean_difference", guard.backbone, strength=1e39)
    reply = guard.generate([picture(1)], ["Hi"], policy=policy, steering=method, **GREEDY)[0]
    assert reply.action is Action.HINT
    assert reply.assessment.verdict is Verdict.UNDECIDED
    same = guard.generate([picture(1)], [f"{reply.hint} Hi"], policy=allow_all(guard), **GREEDY)[0]
    assert reply.text == same.text
    streamer = AnswerStreamer(guard.backbone, GREEDY)
    guard.generate([picture(1)], ["Hi"], policy=policy, steering=method, streamer=streamer, **GREEDY)
    assert "".join(streamer) == same.text
