"""A tiny backbone on disk, saved once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.builders import rows, save_backbone, write_parquet


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("table") / "train.parquet", rows(24, tune=8))
