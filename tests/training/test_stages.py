"""Both stages end to end on tiny models: what learns, what stays frozen, identities, resuming."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal

import pytest
import torch
from lightning.pytorch import Callback
from safevlm.training.cli import command, train
from transformers import CLIPVisionConfig, CLIPVisionModel

from safevlm import RiskScorer, SafeVLM
from safevlm.errors import BackboneError, CheckpointError, DataError
from tests.tiny import picture, tiny_processor
from tests.training.builders import flags, rows, shade, snapshot, write_parquet


def run(stage, argv, *callbacks):
    made = command(stage, argv)
    made.trainer.callbacks.extend(callbacks)
    made.fit()
    return made


def losses(out, column):
    with next(out.with_name(f"{out.name}.run").glob("csv/*/metrics.csv")).open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


@pytest.fixture
def head(backbone, table, tmp_path):
    """Flags of a stage 1 run."""
    return lambda **more: flags(
        backbone, table, tmp_path / "head", **{"model.cache.folder": tmp_path / "c", **more}
    )


@pytest.fixture
def joint(backbone, table, tmp_path):
    """Flags of a stage 2 run."""
    return lambda **more: flags(
        backbone, table, tmp_path / "joint", **{"model.lora.r": 2, "model.refusal_rows": 2, **more}
    )


def test_head_learns_and_its_folder_loads(head, backbone, tmp_path):
    made = run(
        "head", head(**{"trainer.max_epochs": 6, "trainer.log_every_n_steps": 1, "model.schedule.lr": 5e-3})
    )
    for column in ("train/loss", "train/lm", "train/level", "train/category"):
        seen = losses(tmp_path / "head", column)
        assert sum(seen[-4:]) < sum(seen[:4])
    assert losses(tmp_path / "head", "tune/auroc")[-1] > 0.9
    guard = SafeVLM.from_pretrained(tmp_path / "head")
    assert guard.config.backbone == str(backbone)
    assert not guard.config.untrained
    for name, value in made.model.safety.state_dict().items():
        assert torch.equal(value, guard.safety.state_dict()[name])
    scorer = RiskScorer.from_pretrained(tmp_path / "head")
    safe, risky = scorer.assess([shade(0, 90), shade(3, 91)])
    assert safe.score < risky.score
    assert guard.generate([picture()], ["Hi"], max_new_tokens=2)[0].text is not None


def test_a_head_is_trained_on_a_tower_alone(head, tmp_path):
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        image_size=16, patch_size=4, projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPVisionModel(config).save_pretrained(tmp_path / "tower")
    tiny_processor().image_processor.save_pretrained(tmp_path / "tower")
    options = {"trainer.max_epochs": 6, "trainer.log_every_n_steps": 1, "model.schedule.lr": 5e-3}
    chosen = {"model.backbone": tmp_path / "tower", "model.train_tokens": "false"}
    run("head", head(**options, **chosen))
    assert losses(tmp_path / "head", "train/loss")[-1] < losses(tmp_path / "head", "train/loss")[0]
    scorer = RiskScorer.from_pretrained(tmp_path / "head")
    safe, risky = scorer.assess([shade(0, 90), shade(3, 91)])
    assert safe.score < risky.score
    again = ["--model.checkpoint=" + str(tmp_path / "head"), "--model.overwrite=true"]
    run("head", [*head(**{**chosen, "model.backbone": None}), *again])
    with pytest.raises(BackboneError, match="without a language model"):
        run("head", head(**{"model.backbone": tmp_path / "tower", "model.output_dir": tmp_path / "other"}))


def test_joint_learns_from_a_head_and_its_folder_loads(head, joint, table, tmp_path):
    train("head", head(**{"model.train_tokens": "false"}))
    clean = write_parquet(tmp_path / "clean.parquet", [row for row in rows(8) if row["risk_level"] == "safe"])
    more = {"trainer.max_epochs": 4, "trainer.log_every_n_steps": 1, "model.schedule.lr": 5e-3}
    argv = joint(**more, **{"model.checkpoint": tmp_path / "head", "data.clean": clean})
    made = run("joint", argv)
    for column in ("train/loss", "train/lm"):
        seen = losses(tmp_path / "joint", column)
        assert sum(seen[-4:]) < sum(seen[:4])
    again = SafeVLM.from_pretrained(tmp_path / "joint")
    assert again.has_lora
    trained = {k: v for k, v in made.model.guard.language_model.state_dict().items() if "lora_" in k}
    loaded = again.language_model.state_dict()
    assert any(bool(value.abs().sum() > 0) for key, value in trained.items() if "lora_B" in key)
    assert all(torch.equal(value, loaded[key]) for key, value in trained.items())
    assert all("language_model" in key for key in trained)


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_frozen_parameters_are_bit_equal_after_training(stage, head, joint):
    made = command(stage, head() if stage == "head" else joint())
    before = {}

    class Before(Callback):
        def on_train_start(self, trainer, module):
            before.update(snapshot(module))
            before["trained"] = set(module.trained)

    made.trainer.callbacks.append(Before())
    made.fit()
    after, trained = snapshot(made.model), before.pop("trained")
    prefix = "guard.safety."
    expected = {name for name in after if name.startswith(prefix)} | {
        name for name in after if "lora_" in name
    }
    assert trained == expected
    for name, value in before.items():
        if name not in trained:
            assert torch.equal(value, after[name]), name
    moved = {name for name in trained if not torch.equal(before[name], after[name])}
    assert {f"{prefix}tokens.prompt", f"{prefix}tokens.head", f"{prefix}head.prompt.weight"} <= moved


@pytest.mark.parametrize("tokens", ["true", "false"])
def test_the_tower_sees_each_image_once_in_all_epochs_and_runs(tokens, head):
    seen = []

    class Count(Callback):
        def setup(self, trainer, module, stage):
            build = module.build

            def counted():
                build()
                first = next(p for p in module.tower.module.modules() if isinstance(p, torch.nn.Conv2d))
                first.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))

            module.build = counted

    made = run("head", head(**{"model.train_tokens": tokens, "trainer.max_epochs": 3}), Count())
    assert sum(seen) == 24
    assert not made.datamodule.decode_images  # the LLM gets its features from the cache, too
    run("head", head(**{"model.train_tokens": tokens, "model.overwrite": "true"}), Count())
    assert sum(seen) == 24


class Kept(Callback):
    """Numbers that autograd kept for the backward pass of the first step."""

    def __init__(self):
        self.count, self.hooks = 0, None

    def keep(self, tensor):
        self.count += tensor.numel()
        return tensor

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)
        self.hooks.__enter__()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.hooks.__exit__()


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_gradient_checkpointing_keeps_less_and_changes_nothing(stage, head, joint, tmp_path):
    found = []
    for option in ("false", "true"):
        more = {"model.gradient_checkpointing": option, "model.output_dir": tmp_path / option}
        more |= {"trainer.max_steps": 1, "trainer.log_every_n_steps": 1}
        kept, gradients = Kept(), Gradients()
        made = run(stage, (head if stage == "head" else joint)(**more), kept, gradients)
        modes = {name for name, part in made.model.guard.named_modules() if part.training}
        found.append((kept.count, gradients.seen, (losses(tmp_path / option, "train/loss"), modes)))
    (plain, expected, rest), (fewer, again, other) = found
    assert fewer < plain / 2
    assert rest == other  # the loss, and what is in train mode afterwards
    assert expected.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in expected.items())


class Gradients(Callback):
    def __init__(self):
        self.seen = {}

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if not self.seen:
            self.seen = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_batch_of_one_accumulated_eight_times_equals_a_batch_of_eight(stage, head, joint, tmp_path):
    table = rows(12)
    table[1]["risk_level"] = table[2]["risk_category"] = ""
    more = {"data.table": write_parquet(tmp_path / "t.parquet", table), "data.tune_fraction": 0}
    more |= {"trainer.max_steps": 1, "model.loss.class_weights": "balanced", "model.overwrite": "true"}
    more |= {"model.lm_fraction": 0.7} if stage == "head" else {"model.lora.dropout": 0.0}
    argv = head if stage == "head" else joint
    seen = []
    for size, accumulated in ((8, 1), (1, 8)):
        gradients = Gradients()
        run(
            stage,
            argv(**more, **{"data.batch_size": size, "trainer.accumulate_grad_batches": accumulated}),
            gradients,
        )
        seen.append(gradients.seen)
    assert seen[0].keys() == seen[1].keys()
    for name, value in seen[0].items():
        torch.testing.assert_close(value, seen[1][name], rtol=1e-4, atol=1e-5, msg=name)


class Killer(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_killed_and_resumed_run_ends_where_an_uninterrupted_one_does(stage, head, joint, tmp_path):
    argv = head if stage == "head" else joint
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    more = {
        "trainer.max_epochs": 3,
        "save_every": 1,
        "model.gradient_checkpointing": "true",
    }  # four steps an epoch: killed in the second one
    train(stage, argv(**more, **{"model.output_dir": whole}))
    again = argv(**more, **{"model.output_dir": halved})
    child = multiprocessing.get_context("fork").Process(target=run, args=(stage, again, Killer()))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not halved.exists()
    train(stage, [*again, "--ckpt_path=last"])
    expected, found = (SafeVLM.from_pretrained(place) for place in (whole, halved))
    for part in ("safety", "language_model"):
        for name, value in getattr(expected, part).state_dict().items():
            assert torch.equal(value, getattr(found, part).state_dict()[name]), name


def test_checkpoints_hold_what_is_trained_and_are_strict(head, tmp_path):
    train("head", head(**{"trainer.max_epochs": 1}))
    path = tmp_path / "head.run" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    assert all(name.startswith("guard.safety.") for name in saved["state_dict"])
    resume = [*head(**{"trainer.max_epochs": 2, "model.overwrite": "true"}), f"--ckpt_path={path}"]
    with pytest.raises(CheckpointError, match=r"model\.sizes\.num_tokens was 3, is now 5"):
        train("head", [*resume, "--model.sizes.num_tokens=5"])
    saved["state_dict"].pop("guard.safety.tokens.prompt")
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=r"tokens\.prompt' is missing from the checkpoint"):
        train("head", resume)


def test_output_folder_with_another_checkpoint_is_refused(head, joint, tmp_path):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "safety_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"already holds a checkpoint.*--model\.overwrite true"):
        train("head", head())


def test_tokens_need_answers_and_joint_needs_text(head, joint, tmp_path):
    for row in (table := rows(8)):
        del row["response"]
    path = write_parquet(tmp_path / "t.parquet", table)
    with pytest.raises(DataError, match=r"column response: is empty in every row"):
        train("head", head(**{"data.table": path}))
    train("head", head(**{"data.table": path, "model.train_tokens": "false", "trainer.max_epochs": 1}))
    with pytest.raises(DataError, match="row 1, column response: is empty"):
        train("joint", joint(**{"data.table": path}))


def test_joint_takes_rows_without_an_image(joint, tmp_path):
    table = rows(9)
    for row in table[:5]:
        row |= {"image": None, "risk_level": "", "risk_category": ""}
    path = write_parquet(tmp_path / "t.parquet", table)
    train("joint", joint(**{"data.table": path, "data.batch_size": 1, "data.tune_fraction": 0}))
    assert (tmp_path / "joint" / "safety.safetensors").is_file()


def test_calibration_is_fitted_on_enough_tune_rows(head, tmp_path):
    path = write_parquet(tmp_path / "t.parquet", rows(66, tune=50))
    train("head", head(**{"data.table": path, "trainer.max_epochs": 1, "model.train_tokens": "false"}))
    scorer = RiskScorer.from_pretrained(tmp_path / "head")
    assert not scorer.config.untrained
    assert scorer.config.calibration.samples == 50
    assert scorer.config.calibration.data == "t.parquet, tune split"
    assert scorer.assess([picture()])[0].calibrated


class Weights(Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, module):
        torch.save(module.safety.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_two_processes_end_with_equal_weights(stage, head, joint, tmp_path):
    more = {
        "trainer.strategy": "ddp_fork",
        "trainer.devices": 2,
        "trainer.max_epochs": 1,
        "data.batch_size": 2,
    }
    run(stage, (head if stage == "head" else joint)(**more), Weights(tmp_path))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    guard = SafeVLM.from_pretrained(tmp_path / stage)
    assert all(torch.equal(value, first[name]) for name, value in guard.safety.state_dict().items())
