"""Gradient checkpointing: less is kept, losses and gradients are the same, and the model is left as it was."""

from __future__ import annotations

import pytest
import torch
from safevlm.training.lora import Lora, inject_lora, unfreeze_lora

from safevlm import SafeVLM
from safevlm.backbone import checkpointed_layers
from safevlm.backbone.checkpointing import SWITCHES
from safevlm.errors import BackboneError
from safevlm.guard import lm_losses
from tests.families import family_backbone
from tests.tiny import picture, tiny_config

IMAGES = [picture(1, (20, 24)), None, picture(2, (40, 18))]
PROMPTS = ["Hi", "No picture", "What is on it?"]
ANSWERS = ["Yes", "No", "A thing."]


def modes(model):
    """What decides, on every part, whether it is checkpointed; absent where it has nothing of its own."""
    return {
        name: {key: vars(part)[key] for key in SWITCHES if key in vars(part)}
        for name, part in model.named_modules()
    }


def step(guard, **options):
    """Losses, gradients and how many numbers autograd kept for the backward pass."""
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(3)
    guard.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = lm_losses(guard.backbone, guard.safety, IMAGES, PROMPTS, ANSWERS, **options)
    losses.sum().backward()
    gradients = {name: p.grad.clone() for name, p in guard.named_parameters() if p.grad is not None}
    return losses.detach(), gradients, sum(kept)


@pytest.fixture(params=["llava", "qwen2_5_vl", "gemma3"])
def guard(request):
    """With LoRA, whose dropout is on, and dropout in the frozen layers, which must stay off."""
    made = SafeVLM.attach(family_backbone(request.param), tiny_config())
    made.safety.requires_grad_(True)
    inject_lora(made.language_model, Lora(r=2, alpha=4, dropout=0.3))
    for part in unfreeze_lora(made.language_model):
        part.train()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=generator)
    for part in made.language_model.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5
    return made


def test_losses_and_gradients_are_the_same_and_less_is_kept(guard):
    before = modes(guard.language_model)
    losses, gradients, kept = step(guard)
    found, again, fewer = step(guard, gradient_checkpointing=True)
    assert fewer < kept / 3
    assert torch.equal(found, losses)
    assert "safety.tokens.prompt" in gradients
    assert any("lora_A" in name for name in gradients)
    assert gradients.keys() == again.keys()
    for name, value in gradients.items():
        assert torch.equal(value, again[name]), name
    assert modes(guard.language_model) == before


def test_layers_run_in_eval_mode_and_are_left_so_after_an_error(guard):
    seen = []
    layers = guard.backbone.decoder_layers
    before = modes(guard.language_model)

    def look(part, args, kwargs):
        seen.append([layer.training for layer in layers].count(True))
        raise KeyError("stop")

    handle = layers[0].self_attn.register_forward_pre_hook(look, with_kwargs=True)
    with pytest.raises(KeyError, match="stop"):
        step(guard, gradient_checkpointing=True)
    handle.remove()
    assert seen == [len(layers) - 1]  # the one that runs is in eval mode, the others wait for their turn
    assert modes(guard.language_model) == before


def test_a_model_that_checkpoints_already_goes_on_so(guard):
    model = guard.language_model
    model.activation_checkpointing_enable()
    before = modes(model)
    step(guard, gradient_checkpointing=True)
    assert modes(model) == before


def test_layers_of_another_kind_are_refused():
    with (
        pytest.raises(BackboneError, match="train without gradient_checkpointing"),
        checkpointed_layers([torch.nn.Linear(1, 1)]),
    ):
        pass
