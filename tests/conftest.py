"""Fixtures that rooms share; models are built once where tests do not change them."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)
# Start autograd now: torch.compile registers a stand-in GPU, after which a first backward pass would
# forbid autograd in forked processes, which the tests of several processes are.
torch.ones(1, requires_grad=True).backward()

from safevlm import SafeVLM  # noqa: E402
from tests.tiny import tiny_guard  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Tests of Ctrl-C need its handler, which Python leaves out where a shell started the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def guard() -> SafeVLM:
    """A tiny guard with random modules, fresh for each test."""
    return tiny_guard()
