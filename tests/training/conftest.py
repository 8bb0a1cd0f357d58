"""A tiny backbone on disk, saved once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.builders import flags, rows, save_backbone, write_parquet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.training)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("table") / "train.parquet", rows(24, tune=8))


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of vision features that all quick runs share."""
    return tmp_path_factory.mktemp("features") / "cache"


@pytest.fixture
def quick(backbone: Path, table: Path, features: Path) -> Callable[..., list[str]]:
    """Flags of a stage 1 run without the LLM: 16 rows for training and 8 for tuning, 4 steps an epoch."""

    def made(out: Path, **more: Any) -> list[str]:
        options = {"model.train_tokens": "false", "model.cache.folder": features, "trainer.logger": "false"}
        return flags(backbone, table, out, **{**options, **more})

    return made
