"""Dropout of feature channels: whole channels, by row and epoch, and none when the head is measured."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from safevlm.training.cli import command
from safevlm.training.feature_dropout import drop_channels, kept_channels
from safevlm.training.head import HeadTraining

from safevlm.backbone import Views


def test_whole_channels_of_an_image_are_zero_and_the_mean_stays():
    features = torch.ones(3, 4, 4000)
    views = Views.of_one_grid(features, (2, 2), owners=[0, 1, 1])
    kept = kept_channels([5, 9], 4000, 0.25, 0, 1)
    (group,) = drop_channels(views, kept).groups
    assert torch.equal(group.features, kept[[0, 1, 1], None].expand(3, 4, 4000))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean(-1).tolist() == pytest.approx([1, 1], abs=0.05)


def test_a_row_loses_the_same_channels_in_whatever_batch_and_others_in_the_next_epoch():
    given = kept_channels([5, 9], 64, 0.5, 0, 1)
    assert torch.equal(given[1:], kept_channels([9], 64, 0.5, 0, 1))
    assert not torch.equal(given[0], given[1])
    assert not torch.equal(given[1:], kept_channels([9], 64, 0.5, 0, 2))


def test_the_head_is_trained_on_what_is_left_and_measured_on_all(quick, tmp_path):
    read = {"train": [], "tune": []}

    class Watch(Callback):
        def on_train_start(self, trainer, module):
            def note(_, args):
                read["train" if torch.is_grad_enabled() else "tune"].append(args[0].detach().clone())

            module.safety.projector.register_forward_pre_hook(note)

    made = command("head", quick(tmp_path / "out", **{"model.feature_dropout": 0.5, "trainer.max_epochs": 1}))
    made.trainer.callbacks.append(Watch())
    made.fit()
    zero = {
        name: float(torch.cat([(x == 0).all(1) for x in seen]).float().mean()) for name, seen in read.items()
    }
    assert zero["train"] == pytest.approx(0.5, abs=0.1)
    assert zero["tune"] == 0


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_probability_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match="feature_dropout is"):
        HeadTraining("none", feature_dropout=value)
