"""Values that are not finite stop a run, wherever they arise; no weights are written."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from safevlm.training.cli import command
from safevlm.training.finite import all_finite, not_finite

from safevlm.checkpoint import hashes
from safevlm.errors import SafeVLMError, TrainingError


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_any_number_that_is_not_finite_is_found(dtype, value):
    big, bad = torch.full((5, 3), torch.finfo(dtype).max, dtype=dtype), torch.zeros(7, dtype=dtype)
    others = [torch.tensor([1, 2]), torch.empty(0), torch.zeros(2), big]
    assert all_finite([*others, bad])
    bad[3] = value
    assert not all_finite([*others, bad])
    assert not_finite({"a": big, "b": bad}) == "b of 2 tensors"
    assert not_finite({"a": big}) == ""


class Plant(Callback):
    """Puts a number where a run should find it."""

    def __init__(self, place, value, step, rank=0):
        self.place, self.value, self.step, self.rank = place, value, step, rank

    def due(self, trainer, place):
        return (self.place, self.step, self.rank) == (place, trainer.global_step, trainer.global_rank)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.due(trainer, "loss"):
            original = module.head_loss

            def planted(*args):
                parts = original(*args)
                return {name: part * self.value for name, part in parts.items()}

            module.head_loss = planted

    def on_after_backward(self, trainer, module):
        if self.due(trainer, "gradient"):
            module.safety.tokens.head.grad[0, 0] = self.value

    def on_before_zero_grad(self, trainer, module, optimizer):
        if self.due(trainer, "moments"):
            optimizer.state[module.safety.tokens.head]["exp_avg_sq"].fill_(self.value)

    def on_train_batch_end(self, trainer, module, *_):
        if self.due(trainer, "weight"):
            module.safety.tokens.head.data[0, 0] = self.value
        if self.due(trainer, "buffer"):
            module.safety.register_buffer("running", torch.tensor([1.0, self.value]))

    def on_train_end(self, trainer, module):
        if self.due(trainer, "end"):
            module.safety.tokens.head.data[0, 0] = self.value
        if self.due(trainer, "frozen"):
            module.safety.tokens.prompt.data[0, 0] = self.value


LAST = 4  # 16 rows in batches of 4, one epoch
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("place", "value", "step", "where"),
    [
        ("loss", NAN, 0, r"optimizer step 1, epoch 0: the loss of training rows \d+, \d+, \d+, \d+\."),
        ("loss", INF, LAST - 1, "optimizer step 4, .*the loss"),
        ("gradient", -INF, 1, r"optimizer step 2, .*the gradient of .*tokens\.head"),
        ("moments", INF, 2, "optimizer step 3, .*the optimizer's state"),
        ("weight", NAN, LAST, r"optimizer step 4, .*tokens\.head"),
        ("buffer", INF, LAST, "optimizer step 4, .*running"),
        ("end", NAN, LAST, r"end of training: .*tokens\.head"),
        ("frozen", INF, LAST, r"end of training: .*tokens\.prompt"),
    ],
)
def test_run_stops_and_leaves_the_folder_as_it_was(quick, tmp_path, place, value, step, where):
    out = tmp_path / "out"
    out.mkdir()
    (out / "safety_config.json").write_text("of an earlier run")
    before = hashes(out)
    made = command(
        "head",
        quick(
            out,
            **{
                "model.overwrite": "true",
                "trainer.gradient_clip_algorithm": "value",
                "trainer.max_epochs": 1,
            },
        ),
    )
    made.trainer.callbacks.append(Plant(place, value, step))
    with pytest.raises(TrainingError, match=f"not finite .*{where}"):
        made.fit()
    assert hashes(out) == before
    assert not (tmp_path / ".out.part").exists()


@pytest.mark.parametrize("more", [{}, {"trainer.max_steps": 1, "data.tune_fraction": 0}])
def test_a_learning_rate_that_breaks_the_weights_writes_nothing(quick, tmp_path, more):
    with pytest.raises(TrainingError, match="not finite.*lower the learning rate"):
        command("head", quick(tmp_path / "out", **{"model.schedule.lr": 1e30, **more})).fit()
    assert not (tmp_path / "out").exists()


def test_all_processes_stop_where_one_finds_something(quick, tmp_path):
    more = {
        "trainer.strategy": "ddp_fork",
        "trainer.devices": 2,
        "trainer.max_epochs": 1,
        "data.batch_size": 2,
    }
    made = command("head", quick(tmp_path / "out", **more))
    made.trainer.callbacks.append(Plant("weight", NAN, 2, rank=1))
    with pytest.raises(SafeVLMError, match=r"optimizer step 2, .*tokens\.head.*\(process 1\)"):
        made.fit()
    assert not (tmp_path / "out").exists()
