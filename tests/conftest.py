"""Fixtures that rooms share; models are built once where tests do not change them."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)

from safevlm import SafeVLM  # noqa: E402
from tests.tiny import tiny_guard  # noqa: E402


@pytest.fixture
def guard() -> SafeVLM:
    """A tiny guard with random modules, fresh for each test."""
    return tiny_guard()
