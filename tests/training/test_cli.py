"""`safevlm train`: flags, shipped configs, help."""

from __future__ import annotations

import builtins
import sys

import pytest
import yaml
from safevlm.training import train
from safevlm.training.cli import CONFIGS, command

from safevlm.errors import MissingExtraError
from safevlm.labelled.table import Needs, read_table

SHIPPED = ["head", "joint", "mini_head", "mini_joint"]


def test_configs_of_both_stages_and_what_eight_gpus_change_are_shipped():
    found = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert found == sorted(
        [*SHIPPED, "marks", "head_8gpus", "joint_8gpus", "mini_sft", "mini_dpo", "mini_ppo", "ppo_7b"]
    )


@pytest.mark.parametrize("name", ["head", "joint"])
def test_eight_gpus_keep_the_global_batch_and_the_rest(name):
    argv = [
        "--data.table",
        "t.parquet",
        "--trainer.accelerator=cpu",
    ]  # after the configs, so that it runs anywhere
    one = command(name, ["--config", name, *argv])
    eight = command(name, ["--config", name, "--config", f"{name}_8gpus", *argv])
    assert (eight.trainer.world_size, type(eight.trainer.strategy).__name__) == (8, "DDPStrategy")
    assert eight.datamodule.batch_size * 8 * eight.trainer.accumulate_grad_batches == 128
    assert eight.trainer.max_epochs == one.trainer.max_epochs
    assert (eight.model.gradient_checkpointing, one.model.gradient_checkpointing) == (True, True)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_parses_against_the_signatures(name):
    made = command(
        name.split("_")[-1], ["--config", name, "--data.table", "t.parquet", "--trainer.accelerator=cpu"]
    )
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert made.model.schedule.lr == values["model"]["schedule"]["lr"]
    assert made.datamodule.batch_size == values["data"]["batch_size"]
    assert made.trainer.max_epochs == values["trainer"]["max_epochs"]
    if not name.startswith("mini"):  # the paper's numbers
        assert made.datamodule.batch_size * made.trainer.accumulate_grad_batches == 128
        assert made.model.schedule.lr == 1e-5
        assert made.model.schedule.warmup_steps == made.model.default_warmup
        assert made.trainer.max_epochs == 3


def test_flags_win_over_the_config():
    argv = [
        "--config=mini_head",
        "--data.table=t",
        "--model.sizes.num_tokens",
        "5",
        "--data.skip_bad",
        "true",
    ]
    made = command("head", argv)
    assert (made.model.sizes.num_tokens, made.model.sizes.hidden_dim) == (5, 128)
    assert made.datamodule.skip_bad


@pytest.mark.parametrize("stage", ["head", "joint"])
def test_help_has_units_and_defaults(stage, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(stage, ["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"safevlm train {stage}" in text
    for piece in (
        "--model.backbone",
        "--data.table",
        "--ckpt_path",
        "optimizer steps of warm-up",
        "default: 1e-05",
    ):
        assert piece in text
    assert "--trainer.max_epochs" not in text.replace("(--trainer.max_epochs ...)", "")
    assert text.index("--ckpt_path") < text.index("--model.backbone")


def test_the_help_of_the_trainer_is_apart(capsys):
    with pytest.raises(SystemExit) as stopped:
        train("head", ["--help-trainer"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--trainer.max_epochs" in text
    assert "--model.backbone" not in text


@pytest.mark.parametrize(
    "argv", [["--model.layers=3"], ["--data.batch_size=many"], ["--config=no_such.yaml"]]
)
def test_wrong_flags_stop_with_a_message(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        train("head", ["--model.backbone=x", "--data.table=t", *argv])
    assert stopped.value.code == 2
    assert "error" in capsys.readouterr().err


def test_unknown_stage_and_nothing_to_start_from():
    with pytest.raises(ValueError, match="there are head, joint, sft, dpo, ppo"):
        train("both", [])
    with pytest.raises(ValueError, match="give a backbone"):
        train("joint", ["--data.table=t"])


def test_missing_packages_name_their_extra(monkeypatch, table):
    from safevlm import Taxonomy

    real = builtins.__import__

    def no_pyarrow(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", no_pyarrow)
        with pytest.raises(MissingExtraError, match=r"pip install 'safevlm\[train\]'"):
            read_table(table, Taxonomy.preset("safevlm"), needs=Needs())
    monkeypatch.setattr("safevlm.training.cli.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="lightning"):
        train("head", [])


def test_importing_the_package_loads_no_lightning():
    import subprocess

    code = "import sys, safevlm.training; sys.exit('lightning' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
