"""A tiny guard of every family, made once per file of tests."""

from __future__ import annotations

import pytest
import torch

from safevlm import Policy, SafeVLM
from safevlm.backbone import FAMILIES
from tests.families import family_backbone
from tests.tiny import tiny_config


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def guard(request: pytest.FixtureRequest) -> SafeVLM:
    made = SafeVLM.attach(family_backbone(request.param), tiny_config())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.safety.parameters():
            parameter.normal_(std=0.3)
    taxonomy = made.config.taxonomy
    made.policy = Policy(taxonomy, off=frozenset(taxonomy.risky_categories))
    return made
