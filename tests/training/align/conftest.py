"""A concept set, and flags of quick runs on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.align.builders import flags, write_concepts

QUICK = {"ppo.max_new_tokens": 6, "ppo.micro_batch": 4, "ppo.shown_answers": 1}


@pytest.fixture(scope="session")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_concepts(tmp_path_factory.mktemp("concepts") / "set")


@pytest.fixture
def quick(backbone: Path, concepts: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a run on 16 images, in 4 steps."""

    def made(method: str, **more: Any) -> list[str]:
        options = {f"model.{name}": value for name, value in QUICK.items()} if method == "ppo" else {}
        return flags(backbone, tmp_path / "out", **{"data.concepts": concepts, **options, **more})

    return made
