"""The feature cache: what it keeps, refuses, and computes again."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safevlm.training.cache import FeatureCache, bfloat16_copy, cache_identity

from safevlm.backbone import Views, load_tower
from safevlm.errors import DataError
from tests.training.builders import save_backbone

KEYS = ["a" * 64, "b" * 64, "c" * 64]
GRID = (2, 2)


def views(features):
    return Views.of_one_grid(features, GRID, range(len(features)))


@pytest.fixture(scope="module")
def identity(backbone):
    return cache_identity(load_tower(backbone), "float16")


@pytest.fixture
def features():
    return torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def filled(tmp_path, identity, features):
    cache = FeatureCache(tmp_path, identity)
    cache.write(KEYS, views(features))
    cache.flush()
    return tmp_path


def test_features_come_back_within_float16(filled, identity, features):
    cache = FeatureCache(filled, identity)
    assert cache.missing(KEYS) == []
    (group,) = cache.read([KEYS[2], KEYS[0]]).groups
    assert group.grid == GRID
    read = group.features
    assert read.dtype == torch.float32
    torch.testing.assert_close(read, features[[2, 0]], rtol=2**-11, atol=1e-7)


def test_float32_is_exact(tmp_path, identity, features):
    cache = FeatureCache(tmp_path, {**identity, "precision": "float32"})
    cache.write(KEYS, views(features))
    cache.flush()
    assert torch.equal(cache.read(KEYS).groups[0].features, features)


def test_a_quick_copy_gives_nearly_the_same_features(tmp_path, backbone):
    tower = load_tower(backbone)
    quick = bfloat16_copy(tower)
    inputs = tower.preprocess([Image.effect_mandelbrot((60, 60), (-2, -1, 1, 1), 50).convert("RGB")])
    exact, near = tower(inputs).views, quick(inputs).views
    assert (tower.dtype, quick.dtype) == (torch.float32, torch.bfloat16)
    (mine,), (other,) = exact.groups, near.groups
    assert (mine.features - other.features.float()).norm() < 0.03 * mine.features.norm()
    identity = cache_identity(tower, "float16", bfloat16=True)
    assert identity == {**cache_identity(tower, "float16"), "dtype": "bfloat16"}
    cache = FeatureCache(tmp_path, identity)
    cache.write(KEYS[:1], near)
    cache.flush()
    read = cache.read(KEYS[:1]).groups[0].features
    torch.testing.assert_close(read, other.features.float(), rtol=2**-11, atol=1e-6)


def test_another_tower_layer_or_precision_is_refused(filled, identity, tmp_path_factory):
    other = load_tower(save_backbone(tmp_path_factory.mktemp("other") / "base", seed=5))
    with pytest.raises(DataError, match=r"have tower_sha256 .*give another cache folder"):
        FeatureCache(filled, cache_identity(other, "float16"))
    with pytest.raises(DataError, match="have layer -2, this run's tower has -1"):
        FeatureCache(filled, {**identity, "layer": -1})
    with pytest.raises(DataError, match="have precision"):
        FeatureCache(filled, {**identity, "precision": "float32"})


def test_torn_files_are_computed_again(filled, identity, features, caplog):
    data = next(filled.glob("shard-*.npy"))
    data.write_bytes(data.read_bytes()[:-7])
    cache = FeatureCache(filled, identity)
    assert "interrupted or damaged" in caplog.text
    assert cache.missing(KEYS) == KEYS
    cache.write(KEYS, views(features))
    cache.flush()
    assert FeatureCache(filled, identity).missing(KEYS) == []


def test_torn_index_and_data_without_index_do_not_count(filled, identity):
    index = next(filled.glob("shard-*.json"))
    index.write_text(index.read_text()[:40])
    assert FeatureCache(filled, identity).missing(KEYS) == KEYS
    (filled / "shard-00.npy").write_bytes(b"half")
    (filled / ".shard-01.npy.part").write_bytes(b"half")
    assert len(FeatureCache(filled, identity)) == 0


def test_flipped_bit_is_found(filled, identity):
    data = next(filled.glob("shard-*.npy"))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(bytes(content))
    cache = FeatureCache(filled, identity)
    assert cache.damaged(KEYS[:2], cache.shards) == []  # the image that is damaged is not asked for
    assert cache.damaged(KEYS, []) == []
    assert cache.damaged(KEYS, cache.shards) == [data.stem]
    cache.drop(data.stem, "damaged")
    assert cache.missing(KEYS) == KEYS
    assert FeatureCache(filled, identity).missing(KEYS[:1]) == KEYS[:1]  # the shard is gone for good


def test_no_pickle_is_read(filled, identity):
    import numpy as np

    index = next(filled.glob("shard-*.json"))
    data = index.with_suffix(".npy")
    np.save(data, np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    found = json.loads(index.read_text()) | {"bytes": data.stat().st_size}
    index.write_text(json.dumps(found))
    assert FeatureCache(filled, identity).missing(KEYS) == KEYS


def test_values_that_float16_cannot_hold_are_refused(tmp_path, identity, features):
    cache = FeatureCache(tmp_path, identity)
    for value in (1e6, float("nan")):
        with pytest.raises(DataError, match="not finite as float16"):
            cache.write(KEYS, views(features * value))
