"""The accessor of the decoder's layers, on which hooks stand, in every family."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from safevlm.backbone import FAMILIES, Backbone, encode, language_linears, make_chat
from tests.families import DIM, family_backbone


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def backbone(request) -> Backbone:
    return family_backbone(request.param)


def run(backbone: Backbone) -> torch.Tensor:
    """Logits of a short text."""
    inputs = encode(backbone, [make_chat("Hi", 0)], [], safety_tokens=0)
    with torch.no_grad():
        logits: torch.Tensor = backbone.model(**inputs.tensors).logits
    return logits


def ran(backbone: Backbone) -> list[tuple[int, torch.Size]]:
    """Which decoder layers a pass runs, in order, and the size of what each gives."""
    found: list[tuple[int, torch.Size]] = []

    def note(number: int, output: object) -> None:
        states = output[0] if isinstance(output, tuple) else output
        assert isinstance(states, torch.Tensor)
        found.append((number, states.shape))

    handles = [
        layer.register_forward_hook(lambda _, __, output, number=number: note(number, output))
        for number, layer in enumerate(backbone.decoder_layers)
    ]
    run(backbone)
    for handle in handles:
        handle.remove()
    return found


def test_the_layers_are_the_decoders_in_the_order_in_which_they_run(backbone):
    count = backbone.model.config.get_text_config().num_hidden_layers
    found = ran(backbone)
    assert [number for number, _ in found] == list(range(count))
    assert all(size[0] == 1 and size[-1] == DIM for _, size in found)
    vision = {id(part) for part in backbone.tower.module.modules()}
    assert not vision & {id(layer) for layer in backbone.decoder_layers}


def test_all_that_the_model_says_passes_through_each_of_them(backbone):
    before = run(backbone)
    for layer in backbone.decoder_layers:
        handle = layer.register_forward_hook(
            lambda _, __, output: (output[0] + 1, *output[1:]) if isinstance(output, tuple) else output + 1
        )
        assert not torch.allclose(run(backbone), before)
        handle.remove()
    assert torch.equal(run(backbone), before)


def test_the_layers_are_the_same_ones_with_lora(backbone):
    before = backbone.decoder_layers
    name = next(iter(language_linears(backbone.model)))
    inject_adapter_in_model(LoraConfig(r=1, target_modules=[name]), backbone.model)
    after = backbone.decoder_layers
    assert len(after) == len(before)
    assert all(one is other for one, other in zip(after, before, strict=True))
