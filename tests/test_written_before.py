"""Files of the version before its rooms were rearranged load unchanged; `tests/written_before/write.py` wrote them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from safevlm.training.cache import FeatureCache, cache_identity

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import load_tower
from safevlm.cli import main
from safevlm.data import open_source
from safevlm.results.schema import LATER_COLUMNS

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "written_before"
PROMPTS = ["What is this?", "And this?"]
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
FLOATS = 1e-6
"""Scores of another processor or release of PyTorch differ in the last digits."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "images", tmp_path / "images"))


@pytest.fixture
def found(images: Path, tmp_path: Path) -> Path:
    """The scan of the version before, as if the images had always been where they are now."""
    folder = Path(shutil.copytree(HERE / "scan", tmp_path / "found"))
    source = open_source(str(images))
    (shard,) = source.shards()
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE settings SET value = ? WHERE name = 'source'", (source.uri,))
        ledger.execute("UPDATE shards SET source = ?, signature = ?", (source.uri, shard.signature))
    return folder


def scan(images: Path, out: Path, *options: str) -> None:
    model = ["--model", str(HERE / "guard"), "--backbone", str(HERE / "backbone")]
    main(["scan", str(images), "--out", str(out), *model, *options])


def rows_of(out: Path, kind: str = "rows") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / kind / "part-00000.parquet").to_pylist()
    return rows


def assert_equal_rows(found: list[dict[str, Any]], recorded: list[dict[str, Any]]) -> None:
    """Equal in every column, but for where the images lie and the last digits of floats."""
    assert len(found) == len(recorded)
    for row, old in zip(found, recorded, strict=True):
        assert row.keys() - set(LATER_COLUMNS) == old.keys()
        for name in old.keys() - {"source"}:
            if name in ("level_probabilities", "category_probabilities"):
                assert dict(row[name]) == pytest.approx(dict(old[name]), abs=FLOATS), (old["id"], name)
            elif isinstance(old[name], float):
                assert row[name] == pytest.approx(old[name], abs=FLOATS), (old["id"], name)
            else:
                assert row[name] == old[name], (old["id"], name)


def test_a_scan_gives_the_rows_and_thumbnails_of_the_version_before(images: Path, tmp_path: Path) -> None:
    scan(images, tmp_path / "out")
    assert_equal_rows(rows_of(tmp_path / "out"), rows_of(HERE / "scan"))
    made, recorded = rows_of(tmp_path / "out", "thumbnails"), rows_of(HERE / "scan", "thumbnails")
    assert [row["index"] for row in made] == [row["index"] for row in recorded]
    for row, old in zip(made, recorded, strict=True):
        pixels = [np.asarray(Image.open(BytesIO(one["thumbnail"]))).astype(int) for one in (row, old)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 2  # releases of the WebP library round apart
        heat = [np.frombuffer(one["heatmap"], np.uint8).astype(int) for one in (row, old)]
        assert np.abs(heat[0] - heat[1]).max() <= 1


def test_a_finished_scan_stays_as_it_is(images: Path, found: Path) -> None:
    before = (found / "rows/part-00000.parquet").read_bytes()
    scan(images, found, "--resume")
    assert (found / "rows/part-00000.parquet").read_bytes() == before
    assert json.loads((found / "summary.json").read_text())["shards"] == {
        "done": 1,
        "failed": 0,
        "pending": 0,
    }


def test_a_scan_goes_on_where_the_version_before_stopped(images: Path, found: Path) -> None:
    with closing(sqlite3.connect(found / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE shards SET status = NULL, counts = NULL")
    for kind in ("rows", "thumbnails"):
        (found / kind / "part-00000.parquet").unlink()
    scan(images, found, "--resume")
    assert_equal_rows(rows_of(found), rows_of(HERE / "scan"))


def test_its_scan_is_exported(found: Path, tmp_path: Path) -> None:
    main(["export", str(found), "--out", str(tmp_path / "kept.txt"), "--keep", "unsafe", "--format", "txt"])
    flagged = [row["id"] for row in rows_of(HERE / "scan") if row["verdict"] == "unsafe"]
    assert (tmp_path / "kept.txt").read_text().split() == flagged


def test_its_checkpoint_loads_with_lora_and_answers_as_before(tmp_path: Path) -> None:
    guard = SafeVLM.from_pretrained(HERE / "guard", backbone=HERE / "backbone")
    assert guard.has_lora
    recorded = json.loads((HERE / "replies.json").read_text())
    paths = [HERE / "images" / name for name in ("circle-0.png", "gradient.jpg")]
    assert [a.score for a in guard.assess(paths, PROMPTS)] == pytest.approx(recorded["scores"], abs=FLOATS)
    assert [reply.text for reply in guard.generate(paths, PROMPTS, **GREEDY)] == recorded["texts"]
    with guard.disabled():
        assert [reply.text for reply in guard.generate(paths, PROMPTS, **GREEDY)] == recorded["plain"]
    guard.save_pretrained(tmp_path)
    for name in ("safety.safetensors", "lora/adapter_model.safetensors"):
        again, old = load_file(tmp_path / name), load_file(HERE / "guard" / name)
        assert again.keys() == old.keys()
        assert all(torch.equal(again[key], old[key]) for key in old)
    assert json.loads((tmp_path / "safety_config.json").read_text()) == json.loads(
        (HERE / "guard/safety_config.json").read_text()
    )


def test_its_checkpoint_scores_without_the_llm() -> None:
    scorer = RiskScorer.from_pretrained(HERE / "guard", backbone=HERE / "backbone")
    (assessment,) = scorer.assess([HERE / "images/circle-0.png"])
    (row,) = (row for row in rows_of(HERE / "scan") if row["id"] == "circle-0.png")
    assert assessment.score == pytest.approx(row["score"], abs=FLOATS)


def test_its_feature_cache_is_read(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HERE / "features", tmp_path / "features"))
    cache = FeatureCache(folder, cache_identity(load_tower(HERE / "backbone"), "float16"))
    keys = ["b" * 64, "a" * 64]
    assert cache.missing(keys) == []
    (group,) = cache.read(keys).groups
    values = torch.arange(2 * 4 * 8, dtype=torch.float32).view(2, 4, 8) / 7
    torch.testing.assert_close(group.features, values[[1, 0]], rtol=2**-11, atol=1e-7)
