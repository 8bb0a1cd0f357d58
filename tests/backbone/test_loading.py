"""Loading: memory, dtype and device, attention, quantized language models, compiled scorers."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import BitsAndBytesConfig, GenerationConfig

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import load_backbone, load_tower, safety_dtype
from safevlm.backbone.placement import one_device
from safevlm.backbone.quantized import skip_tower
from safevlm.checkpoint import load_tensors
from safevlm.errors import BackboneError, CheckpointError
from tests.backbone.llava_layout import llava_config, measure, write_layout
from tests.tiny import picture, tiny_config, tiny_guard, tiny_llava, tiny_processor

PICTURES = [picture(seed) for seed in range(3)]
MB = 10**6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny backbone and safety modules that were trained on it."""
    path = tmp_path_factory.mktemp("guard")
    guard = tiny_guard()
    guard.language_model.save_pretrained(path / "base")
    guard.backbone.processor.save_pretrained(path / "base")
    guard.config = guard.config.with_changes(backbone=str(path / "base"))
    guard.save_pretrained(path / "adapter")
    return path


def scores(scorer, images=PICTURES, prompts=None):
    return [assessment.score for assessment in scorer.assess(images, prompts)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_scorer_needs_the_memory_of_tower_and_modules_alone(tmp_path):
    """LLaVA-1.5-7B's layout, 14 GB in shards of which the LLM's part are holes, and modules of the paper's size."""
    total = write_layout(tmp_path, llava_config("7b"))
    assert total == pytest.approx(14.13e9, rel=1e-3)
    found = measure(tmp_path, dtype="float32")
    assert found["layers"] == 23
    assert found["tower"] > 1160 * MB
    assert found["modules"] > 480 * MB
    assert found["loaded"] <= found["tower"] + found["modules"] + 200 * MB
