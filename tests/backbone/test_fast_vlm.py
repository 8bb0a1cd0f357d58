"""FastVLM with a FastViT tower, as the published models have it; tests of every family run on an EfficientNet."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import wrap_backbone
from safevlm.errors import BackboneError
from tests.families import (
    FASTVIT,
    GREEDY,
    IMAGES,
    PROMPTS,
    family_backbone,
    family_parts,
    fast_vlm_parts,
    plain_inputs,
)
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


def backbone():
    return family_backbone("fast_vlm", parts=fast_vlm_parts(FASTVIT))


def test_disabled_equals_the_plain_model_bit_for_bit():
    guard, plain = SafeVLM.attach(backbone(), tiny_config()), backbone()
    inputs = plain_inputs(plain, PROMPTS, IMAGES)
    made = plain.model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    with guard.disabled():
        found = [reply.text for reply in guard.generate(IMAGES, PROMPTS, **GREEDY)]
    assert found == [text.strip() for text in plain.tokenizer.batch_decode(made, skip_special_tokens=True)]


def test_the_tower_alone_scores_as_the_whole_model(tmp_path):
    made = backbone()
    made.model.save_pretrained(tmp_path / "base")
    made.processor.save_pretrained(tmp_path / "base")
    guard = SafeVLM.attach(made, tiny_config())
    with torch.no_grad():
        for parameter in guard.safety.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    guard.save_pretrained(tmp_path / "guard")
    scorer = RiskScorer.from_pretrained(tmp_path / "guard", backbone=tmp_path / "base")
    norms = (torch.nn.BatchNorm2d,)
    count = [
        sum(isinstance(part, norms) for part in tower.module.modules())
        for tower in (made.tower, scorer.tower)
    ]
    assert count[1] < count[0]
    images = [IMAGES[0], IMAGES[1]]
    expected = [found.score for found in guard.assess(images)]
    assert [found.score for found in scorer.assess(images)] == pytest.approx(expected, abs=1e-4)
    assert scorer.tower.fingerprint == made.tower.fingerprint


def test_a_processor_without_a_patch_size_is_refused():
    config, processor = family_parts("fast_vlm")
    processor.patch_size = None
    with pytest.raises(BackboneError, match="has no patch_size"):
        wrap_backbone(AutoModelForImageTextToText.from_config(config), processor)
