"""What only a cluster does: lose an actor, and leave processes behind if nobody ends them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safevlm.data import open_source
from safevlm.errors import CheckpointError, SafeVLMError
from safevlm.scan import Checkpoint, ScanOptions, scan
from safevlm.scan.batch import Batch
from safevlm.scan.cluster import by_shard
from safevlm.scorer import RiskScorer
from tests.data.builders import make_source, picture_bytes
from tests.scan.tiny_checkpoint import rows_of
from tests.tiny import tiny_llava, tiny_processor

pytestmark = pytest.mark.ray


@dataclass
class Mortal:
    """A scorer whose process is killed at its third batch, once."""

    scorer: RiskScorer
    grave: Path
    batches: int = 0

    def preprocess(self, images: Any) -> Any:
        return self.scorer.preprocess(images)

    def assess_inputs(self, inputs: Any, prompts: Any = None, **options: Any) -> Any:
        self.batches += 1
        if self.batches == 3 and not self.grave.exists():
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.scorer.assess_inputs(inputs, prompts, **options)


@dataclass(frozen=True)
class MortalCheckpoint(Checkpoint):
    """A checkpoint whose scorer is `Mortal`."""

    grave: Path = Path()

    def load(self) -> RiskScorer:
        return Mortal(super().load(), self.grave)  # type: ignore[return-value]


def test_shards_are_put_together_whatever_order_their_batches_come_in() -> None:
    sizes = {0: 3, 1: 1, 2: 5}
    batches = [Batch(s, n, last=n == size - 1) for s, size in sizes.items() for n in range(size)]
    for seed in range(20):
        random.Random(seed).shuffle(batches)
        found = list(by_shard(batches))
        assert sorted(found, key=lambda b: (b.shard, b.number)) == sorted(
            batches, key=lambda b: (b.shard, b.number)
        )
        for number, size in sizes.items():
            first = next(i for i, batch in enumerate(found) if batch.shard == number)
            assert [batch.number for batch in found[first : first + size]] == list(range(size))


@pytest.mark.usefixtures("ray_here")
def test_a_killed_actor_loses_nothing(model: Checkpoint, tmp_path: Path) -> None:
    images = [(f"{number:03d}.png", picture_bytes(number)) for number in range(14)]
    source = open_source(make_source("parquet", tmp_path, images, [f"a caption {n}" for n in range(14)]))
    options = ScanOptions(batch_size=2, workers=1, with_text=True, limit=13, sample_fraction=0.9)
    whole = scan(source, model, tmp_path / "local", options)
    mortal = MortalCheckpoint(model.name, model.backbone, model.chosen_policy, grave=tmp_path / "grave")
    found = scan(
        source,
        mortal,
        tmp_path / "ray",
        ScanOptions(batch_size=2, workers=1, with_text=True, limit=13, sample_fraction=0.9, engine="ray"),
    )
    assert (tmp_path / "grave").exists()
    assert (found.n, found.skipped, found.verdicts) == (whole.n, whole.skipped, whole.verdicts)
    for row, expected in zip(rows_of(tmp_path / "ray"), rows_of(tmp_path / "local"), strict=True):
        assert row.pop("score") == pytest.approx(expected.pop("score"), abs=1e-5)
        for name in ("level_probabilities", "category_probabilities"):
            assert dict(row.pop(name)) == pytest.approx(dict(expected.pop(name)), abs=1e-5)
        assert row == expected


@dataclass(frozen=True)
class Missing(Checkpoint):
    """A checkpoint that is not on the node of the actor."""

    def load(self) -> RiskScorer:
        raise SafeVLMError("no such checkpoint on this node; copy it there")


@pytest.mark.usefixtures("ray_here")
def test_what_goes_wrong_on_a_node_is_told(model: Checkpoint, pictures: Path, tmp_path: Path) -> None:
    missing = Missing(model.name, model.backbone, model.chosen_policy)
    with pytest.raises(SafeVLMError, match="no such checkpoint on this node"):
        scan(open_source(str(pictures)), missing, tmp_path / "out", ScanOptions(engine="ray"))


@pytest.mark.usefixtures("ray_here")
def test_another_backbone_is_named_by_the_error_that_loading_raises(
    model: Checkpoint, pictures: Path, tmp_path: Path
) -> None:
    tiny_llava(7).save_pretrained(tmp_path / "other")
    tiny_processor().save_pretrained(tmp_path / "other")
    wrong = Checkpoint(model.name, str(tmp_path / "other"), model.chosen_policy)
    with pytest.raises(CheckpointError, match="tower_fingerprint is not that of the backbone's"):
        scan(open_source(str(pictures)), wrong, tmp_path / "out", ScanOptions(engine="ray"))


def marked(mark: str) -> list[int]:
    """Ids of the living processes that were started with a word in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue  # ended meanwhile
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_an_interrupted_command_ends_its_cluster_and_can_go_on(
    tiny: tuple[str, str], pictures: Path, tmp_path: Path
) -> None:
    out, mark = tmp_path / "out", f"interrupted-{tmp_path}"
    options = ["--model", tiny[0], "--backbone", tiny[1], "--engine", "ray"]
    process = subprocess.Popen(
        [sys.executable, "-m", "safevlm.cli", "scan", str(pictures), "--out", str(out), *options],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"SAFEVLM_MARK": mark, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert any("Started a local Ray instance" in line for line in process.stderr)
    while len(marked(mark)) <= 3:  # until the cluster has processes
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Go on with:\n  safevlm scan" in errors
    for _ in range(600):  # a minute: they are told to end, but not waited for
        if not (left := marked(mark)):
            break
        time.sleep(0.1)
    assert not left
    assert scan(open_source(str(pictures)), Checkpoint(*tiny), out).n == 20
