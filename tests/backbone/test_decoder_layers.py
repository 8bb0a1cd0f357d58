"""The text decoder's layers of every family: all of them, in order, and nothing of the vision tower."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn

from safevlm import SafeVLM
from safevlm.backbone import FAMILIES, Backbone, language_linears
from safevlm.errors import BackboneError
from tests.families import TEXT, family_backbone
from tests.tiny import picture, tiny_config

LAYERS = 3


def deep_backbone(kind: str, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A tiny model whose decoder has another number of layers than its tower, so that the two cannot be confused."""
    monkeypatch.setitem(TEXT, "num_hidden_layers", LAYERS)
    return family_backbone(kind)


@pytest.fixture(params=sorted(FAMILIES))
def backbone(request, monkeypatch) -> Backbone:
    return deep_backbone(request.param, monkeypatch)


def run_text(model, backbone: Backbone) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """A forward pass of text alone: the layers' numbers as they ran, the first one's input, and the embeddings."""
    order, inputs, embedded = list[int](), list[torch.Tensor](), list[torch.Tensor]()
    layers = backbone.family.decoder_layers(model)

    def note(number: int):
        def hook(_, args, kwargs):
            order.append(number)
            inputs.append(args[0] if args else kwargs["hidden_states"])

        return hook

    handles = [
        layer.register_forward_pre_hook(note(number), with_kwargs=True) for number, layer in enumerate(layers)
    ]
    handles.append(
        backbone.input_embeddings.register_forward_hook(lambda _, __, output: embedded.append(output.clone()))
    )
    ids = torch.tensor([[1, 40, 41, 42]])
    options = (
        {"token_type_ids": torch.zeros_like(ids)} if "token_type_ids" in backbone.family.answer_types else {}
    )
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    finally:
        for handle in handles:
            handle.remove()
    return order, inputs[0], embedded[0]


def test_all_layers_run_in_the_order_of_the_list(backbone):
    layers = backbone.decoder_layers
    assert len(layers) == LAYERS == backbone.model.config.get_text_config().num_hidden_layers
    order, first, embedded = run_text(backbone.model, backbone)
    assert order == list(range(LAYERS))
    assert torch.equal(first, embedded)


def test_no_layer_is_of_the_vision_tower_or_holds_the_embeddings(backbone):
    own = {id(part) for layer in backbone.decoder_layers for part in layer.modules()}
    assert not own & {id(part) for part in backbone.tower.module.modules()}
    assert id(backbone.input_embeddings) not in own
    assert id(backbone.model.get_output_embeddings()) not in own


def test_lora_leaves_the_layers_as_they_are(backbone):
    layers = backbone.decoder_layers
    inject_adapter_in_model(
        LoraConfig(r=2, target_modules=list(language_linears(backbone.model))), backbone.model
    )
    assert all(one is other for one, other in zip(layers, backbone.decoder_layers, strict=True))
    assert run_text(backbone.model, backbone)[0] == list(range(LAYERS))


def test_a_model_wrapped_by_peft_has_the_same_layers(backbone):
    layers = backbone.decoder_layers
    wrapped = get_peft_model(
        backbone.model, LoraConfig(r=2, target_modules=list(language_linears(backbone.model)))
    )
    found = backbone.family.decoder_layers(wrapped)
    assert all(one is other for one, other in zip(layers, found, strict=True))
    assert run_text(wrapped, backbone)[0] == list(range(LAYERS))


def test_answering_leaves_the_layers_as_they_are(backbone):
    guard = SafeVLM.attach(backbone, tiny_config())
    layers = backbone.decoder_layers
    guard.generate([picture(1)], ["Hi"], max_new_tokens=1, do_sample=False)
    assert all(one is other for one, other in zip(layers, guard.backbone.decoder_layers, strict=True))


def test_linear_layers_are_those_of_the_decoder_by_name(backbone):
    found = language_linears(backbone.model)
    decoder = backbone.model.get_decoder()
    expected = {id(part) for part in decoder.modules() if isinstance(part, nn.Linear)}
    expected.discard(id(backbone.model.get_output_embeddings()))
    assert {id(part) for part in found.values()} == expected
    assert len(found) == LAYERS * 7  # four of attention, three of the MLP
    assert all(backbone.model.get_submodule(name) is part for name, part in found.items())


def test_a_decoder_without_a_list_of_layers_is_refused(monkeypatch):
    backbone = family_backbone("llava")
    decoder = copy.copy(backbone.model.get_decoder())
    decoder._modules = {name: part for name, part in decoder._modules.items() if name != "layers"}
    monkeypatch.setattr(backbone.model, "get_decoder", lambda: decoder)
    with pytest.raises(BackboneError, match="no list of layers"):
        _ = backbone.decoder_layers
