"""A tiny guard of every family, made once per file of tests."""

from __future__ import annotations

import pytest
import torch

from safevlm import Policy, SafeVLM
from safevlm.backbone import FAMILIES
from tests.families import family_backbone
from tests.tiny import tiny_config

USUAL = ("llava", "qwen2_5_vl")
"""Families of the fast tests: a fixed number of tokens an image, and one that depends on its size."""
PARAMS = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in sorted(FAMILIES)]


@pytest.fixture(scope="module", params=PARAMS)
def guard(request: pytest.FixtureRequest) -> SafeVLM:
    made = SafeVLM.attach(family_backbone(request.param), tiny_config())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.safety.parameters():
            parameter.normal_(std=0.3)
    taxonomy = made.config.taxonomy
    made.policy = Policy(taxonomy, off=frozenset(taxonomy.risky_categories))
    return made
