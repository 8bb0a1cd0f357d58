"""A tiny model on disk, as every engine loads it, and pictures for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from safevlm.policy import Policy
from safevlm.scan import Checkpoint
from safevlm.scorer import RiskScorer
from safevlm.taxonomy import Taxonomy
from tests.data.builders import picture_bytes
from tests.scan.tiny_checkpoint import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of the tiny checkpoint and of its backbone."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(tiny: tuple[str, str]) -> Checkpoint:
    """The tiny model; half of the pictures of noise are unsafe to it."""
    scores = [a.score for a in Checkpoint(*tiny).load().assess([picture_bytes(seed) for seed in range(9)])]
    # between two of them: a picture's own score differs in the last digits from batch to batch
    middle = sum(sorted(scores)[4:6]) / 2
    return Checkpoint(*tiny, Policy(Taxonomy.preset("safevlm"), threshold=middle))


@pytest.fixture(scope="session")
def scorer(model: Checkpoint) -> RiskScorer:
    """The oracle: the same model, asked image by image."""
    return model.load()


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One small Ray for the whole session."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=150_000_000, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty pictures of noise in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}.png").write_bytes(picture_bytes(number))
    return folder
