"""A direction as a value and as files: checked when made, equal after a round trip, refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from safevlm.backbone import Backbone
from safevlm.errors import CheckpointError
from safevlm.steering import Direction
from tests.families import family_backbone
from tests.tiny import tiny_backbone


def direction_of(backbone: Backbone, *, rank: int = 3, seed: int = 0, **changes: Any) -> Direction:
    """Random orthonormal rows for every layer of a backbone."""
    generator = torch.Generator().manual_seed(seed)
    layers = range(len(backbone.decoder_layers))
    wide = {layer: torch.randn(backbone.text_dim, rank, generator=generator) for layer in layers}
    values: dict[str, Any] = {
        "rows": {layer: torch.linalg.qr(matrix).Q.T.contiguous() for layer, matrix in wide.items()},
        "singular_values": {layer: torch.arange(rank, 0, -1).float() for layer in layers},
        "axis": "harmful_query",
        "model_type": backbone.model_type,
        "fingerprint": backbone.language_fingerprint,
        "pairs_sha256": "0" * 64,
        "layers": (1,),
        "separation": dict.fromkeys(layers, 0.75),
    }
    return Direction(**values | changes)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture
def direction(backbone) -> Direction:
    return direction_of(backbone)


def test_saved_and_loaded_is_equal_bit_for_bit(direction, tmp_path):
    direction.save(tmp_path)
    loaded = Direction.load(tmp_path)
    for name in ("rows", "singular_values"):
        one, other = getattr(direction, name), getattr(loaded, name)
        assert list(one) == list(other)
        assert all(torch.equal(one[layer], other[layer]) for layer in one)
    for name in ("axis", "model_type", "fingerprint", "pairs_sha256", "position", "layers", "separation"):
        assert getattr(direction, name) == getattr(loaded, name)


def test_saving_again_writes_the_same_bytes(direction, tmp_path):
    for folder in ("a", "b"):
        direction.save(tmp_path / folder)
        direction = Direction.load(tmp_path / folder)
    for name in ("direction.json", "direction.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_fits_its_own_model_in_another_dtype(direction, backbone):
    direction.check_fits(backbone)
    half = tiny_backbone()
    half.model.to(torch.bfloat16)
    direction.check_fits(half)


def test_another_model_is_refused(direction, backbone):
    with pytest.raises(CheckpointError, match="other weights.*steer fit"):
        direction.check_fits(tiny_backbone(1))
    with pytest.raises(CheckpointError, match="model_type is llava, the backbone's is qwen2_vl"):
        direction.check_fits(family_backbone("qwen2_vl"))


def test_other_layers_of_the_same_embeddings_are_refused(direction):
    other = tiny_backbone()
    next(other.decoder_layers[1].parameters()).data.normal_()
    with pytest.raises(CheckpointError, match="other weights"):
        direction.check_fits(other)


def test_another_width_or_number_of_layers_is_refused(direction, backbone):
    narrow = {layer: rows[:, :8] for layer, rows in direction.rows.items()}
    narrow = {layer: torch.linalg.qr(rows.T).Q.T.contiguous() for layer, rows in narrow.items()}
    with pytest.raises(CheckpointError, match="width is 8, the backbone's is 32"):
        replace(direction, rows=narrow).check_fits(backbone)
    deeper = {
        name: {**getattr(direction, name), 2: getattr(direction, name)[0]}
        for name in ("rows", "singular_values")
    }
    with pytest.raises(CheckpointError, match="2 decoder layers"):
        replace(direction, **deeper).check_fits(backbone)
    with pytest.raises(CheckpointError, match="2 decoder layers"):
        replace(direction, fingerprint=direction.fingerprint[:-1]).check_fits(backbone)


def test_axes_cannot_be_mixed(direction):
    direction.check_axis("harmful_query")
    with pytest.raises(CheckpointError, match="needs jailbroken_behaviour"):
        direction.check_axis("jailbroken_behaviour")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"axis": "harm"}, "axis"),
        ({"position": "first"}, "position"),
        ({"pairs_sha256": "abc"}, "64 hex"),
        ({"layers": ()}, "at least one"),
        ({"layers": (1, 0)}, "ascending"),
        ({"layers": (2,)}, "layer 2, which is out of range"),
        ({"separation": {5: 0.5}}, "layer 5, which is out of range"),
        ({"separation": {0: float("nan")}}, "separation of layer 0"),
        ({"separation": {0: 1.5}}, "separation of layer 0"),
        ({"rows": {}}, "same layers"),
        ({"rows": {0: torch.eye(3, 32)}}, "same layers"),
        ({"rows": {0: torch.eye(3, 32), 1: torch.eye(2, 32)}}, "same size"),
        ({"rows": {0: torch.eye(3, 32), 1: torch.eye(3, 32).bfloat16()}}, "float32"),
        ({"rows": {0: torch.eye(3, 32), 1: torch.eye(3, 32) * torch.nan}}, "not finite"),
        ({"rows": {0: torch.eye(3, 32), 1: torch.eye(3, 32) * 2}}, "not orthonormal"),
        ({"singular_values": {0: torch.ones(3), 1: torch.tensor([1.0, 2, 3])}}, "do not descend"),
    ],
)  # fmt: skip
def test_values_that_are_no_direction(backbone, changes, told):
    with pytest.raises(ValueError, match=told):
        direction_of(backbone, **changes)


def edited(folder, **changes):
    path = folder / "direction.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "pip install -U safevlm"),
        ({"axis": None}, "missing fields"),
        ({"extra": 1}, "foreign fields"),
        ({"axis": 1}, "axis is 1"),
        ({"rank": 2}, "size"),
        ({"rank": 3.0}, "whole numbers"),
        ({"fitted_layers": [0]}, "foreign"),
        ({"fitted_layers": [0, 1, 2]}, "missing"),
        ({"fitted_layers": [0, 0, 1]}, "repetition"),
        ({"layers": [7]}, "out of range"),
        ({"fingerprint": ["x"]}, "list of numbers"),
        ({"separation": {"a": 1}}, "separation"),
        ({"tensors_sha256": "0" * 64}, "restore both from one save"),
    ],
)
def test_a_folder_that_was_edited(direction, tmp_path, changes, told):
    direction.save(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=told):
        Direction.load(tmp_path)


def test_a_folder_without_its_files(direction, tmp_path):
    with pytest.raises(CheckpointError, match="safevlm steer fit"):
        Direction.load(tmp_path)
    direction.save(tmp_path)
    (tmp_path / "direction.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        Direction.load(tmp_path)


def test_tensors_of_another_dtype_are_refused(direction, tmp_path):
    direction.save(tmp_path)
    path = tmp_path / "direction.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match="one save"):
        Direction.load(tmp_path)


def test_a_truncated_file_is_refused(direction, tmp_path):
    direction.save(tmp_path)
    path = tmp_path / "direction.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Direction.load(tmp_path)
    (tmp_path / "direction.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"direction\.json"):
        Direction.load(tmp_path)
