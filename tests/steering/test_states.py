"""States at the last token: those of the model's own forward pass, whatever the batch, in one forward pass of text."""

from __future__ import annotations

import pytest
import torch

from safevlm.backbone import FAMILIES, encode, make_chat
from safevlm.errors import BackboneError
from safevlm.steering import last_states
from tests.families import TEXT, family_backbone
from tests.tiny import picture, tiny_backbone

PROMPTS = ["Hi", "How to bake bread?", "And how do I tell whether it is done, without burning my hands?"]
USUAL = ("llava", "qwen2_5_vl")
FAMILY = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in sorted(FAMILIES)]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.mark.parametrize("kind", FAMILY)
def test_a_batch_equals_its_items(kind):
    backbone = family_backbone(kind)
    together = last_states(backbone, PROMPTS)
    assert together.shape == (2, 3, 32)
    assert together.dtype == torch.float32
    alone = [last_states(backbone, [prompt]) for prompt in PROMPTS]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), **CLOSE)
    torch.testing.assert_close(together, last_states(backbone, PROMPTS, batch_size=2), **CLOSE)


@pytest.mark.parametrize("kind", FAMILY)
def test_equal_the_hidden_states_of_a_forward_pass_without_padding(kind, monkeypatch):
    monkeypatch.setitem(TEXT, "num_hidden_layers", 3)
    backbone = family_backbone(kind)
    states = last_states(backbone, PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        inputs = encode(backbone, [make_chat(prompt, 0)], [], safety_tokens=0)
        assert bool(inputs.tensors["attention_mask"].all())
        with torch.no_grad():
            hidden = backbone.model(**inputs.tensors, output_hidden_states=True).hidden_states
        for layer in range(2):  # behind the last layer, transformers gives the normed state
            torch.testing.assert_close(states[layer, number], hidden[layer + 1][0, -1], **CLOSE)


def test_an_image_is_seen_and_changes_the_states():
    backbone = tiny_backbone()
    alone, first, second = (
        last_states(backbone, PROMPTS, image=image) for image in (None, picture(1), picture(2))
    )
    assert not torch.allclose(alone, first, atol=1e-3)
    assert not torch.allclose(first, second, atol=1e-3)
    single = torch.cat([last_states(backbone, [prompt], image=picture(1)) for prompt in PROMPTS], dim=1)
    torch.testing.assert_close(first, single, **CLOSE)


def test_the_prompt_is_the_one_that_an_answer_begins_at():
    backbone = tiny_backbone()
    seen = []
    handle = backbone.input_embeddings.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        last_states(backbone, ["Hi"])
    finally:
        handle.remove()
    (ids,) = seen
    assert backbone.tokenizer.decode(ids[0]).endswith("USER: Hi ASSISTANT: ")


def test_one_forward_pass_a_batch_and_none_of_the_tower():
    backbone = tiny_backbone()
    calls = {"decoder": 0, "layer": 0, "tower": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    parts = {
        "decoder": backbone.model.get_decoder(),
        "layer": backbone.decoder_layers[0],
        "tower": backbone.tower.module,
    }
    handles = [part.register_forward_hook(count(name)) for name, part in parts.items()]
    try:
        last_states(backbone, [*PROMPTS, "More"], batch_size=2)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == {"decoder": 2, "layer": 2, "tower": 0}


def hooks(backbone) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in backbone.model.modules())


def test_no_hook_stays_even_after_an_exception(monkeypatch):
    backbone = tiny_backbone()
    before = hooks(backbone)
    last_states(backbone, PROMPTS)
    assert hooks(backbone) == before

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backbone.decoder_layers[1], "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        last_states(backbone, PROMPTS)
    assert hooks(backbone) == before


def test_a_layer_that_does_not_run_is_refused(monkeypatch):
    backbone = tiny_backbone()
    layers = [*backbone.decoder_layers, torch.nn.Linear(1, 1)]
    monkeypatch.setattr(type(backbone.family), "decoder_layers", lambda *_: layers)
    with pytest.raises(BackboneError, match=r"ran \[1, 1, 0\] times"):
        last_states(backbone, PROMPTS)


@pytest.mark.parametrize(("prompts", "size"), [([], 1), (["Hi"], 0)])
def test_nothing_to_run(prompts, size):
    with pytest.raises(ValueError, match="at least one"):
        last_states(tiny_backbone(), prompts, batch_size=size)
