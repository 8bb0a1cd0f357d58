"""A tiny model of every family, made once per file of tests."""

from __future__ import annotations

import pytest

from safevlm.backbone import FAMILIES, Backbone
from tests.families import family_backbone

USUAL = ("llava", "qwen2_5_vl")
"""Families of the fast tests: a fixed number of tokens an image, and one that depends on its size."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in sorted(FAMILIES)],
)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return family_backbone(request.param)
