"""Vision features that were kept, read by the LLM of every family in place of a pass of the tower."""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn

from safevlm.backbone import Views, encode, injected, make_chat
from tests.families import IMAGES, PROMPTS

COUNTS = [len(entry) if isinstance(entry, list) else 1 for entry in IMAGES]
FLAT = [image for entry in IMAGES for image in (entry if isinstance(entry, list) else [entry])]
BLANK = [Image.new("RGB", (1, 1))] * len(FLAT)


def first_layer(tower):
    """What every pass of the tower runs, and a replay does not."""
    return next(
        part for part in tower.module.modules() if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear))
    )


@torch.no_grad()
def logits(guard, passed, images):
    chats = [make_chat(prompt, count) for prompt, count in zip(PROMPTS, COUNTS, strict=True)]
    inputs = encode(guard.backbone, chats, images, safety_tokens=3, answers=["Yes", "No", ""], passed=passed)
    with injected(guard.backbone, inputs, tokens=guard.safety.tokens.prompt, passed=passed):
        return guard.language_model(**guard.backbone.on_device(inputs.tensors)).logits


def test_what_is_kept_is_read_as_the_towers_own_pass(guard):
    for name, parameter in guard.language_model.named_parameters():
        if name.endswith("mm_input_projection_weight"):  # a fresh Gemma 3's is zero
            parameter.data.normal_(std=0.2)
    tower = guard.backbone.tower
    inputs = tower.preprocess(FLAT)
    passed = tower(inputs)
    kept = tower.pack(passed)
    assert tower.positions(inputs) == sum(len(features) for features, _ in kept)
    assert {features.shape[1] for features, _ in kept} == {tower.states * tower.dim}
    on_disk = [(torch.from_numpy(features.numpy().copy()), grid) for features, grid in kept]
    runs = []
    with first_layer(tower).register_forward_hook(lambda *_: runs.append(1)):
        again = tower.unpack(Views.gather(on_disk, kept.owners, kept.boxes))
        assert again.rows == passed.rows
        for (own, grid), (features, expected) in zip(again.views, passed.views, strict=True):
            assert grid == expected
            assert torch.equal(own, features)
        images = BLANK if guard.backbone.family.reads_prepared else FLAT
        found = logits(guard, again, images)
        assert not runs
        expected = logits(guard, passed, FLAT)
    assert torch.equal(found, expected)
    changed = tower.unpack(Views.gather([(f * 2 + 1, g) for f, g in on_disk], kept.owners, kept.boxes))
    assert not torch.equal(logits(guard, changed, images), expected)  # they are read
