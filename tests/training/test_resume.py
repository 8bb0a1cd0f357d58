"""A resumed run goes on with the same rows and options, or says what differs; `last` is the last."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from safevlm.training.cli import command
from safevlm.training.datamodule import SafetyDataModule
from safevlm.training.head import HeadTraining
from safevlm.training.joint import JointTraining
from safevlm.training.lora import Lora
from safevlm.training.options import Cache, Loss, Operating, Schedule, Sizes
from safevlm.training.resume import KEY, STEPS, refuse_changes

from safevlm import Taxonomy
from safevlm.errors import CheckpointError
from tests.training.builders import flags, rows, write_parquet


class Stopped(Exception):
    """What ends a run in these tests."""


class Seen(Callback):
    """The rows of every batch, and an end after some of them."""

    def __init__(self, stop=None):
        self.batches, self.stop = [], stop

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if len(self.batches) == self.stop:
            raise Stopped
        self.batches.append((trainer.current_epoch, batch["index"].tolist()))


def seen(argv, stop=None):
    """The batches of a run; it ends before batch number `stop`."""
    made, found = command("head", argv), Seen(stop)
    made.trainer.callbacks.append(found)
    if stop is None:
        made.fit()
    else:
        with pytest.raises(Stopped):
            made.fit()
    return found.batches


@pytest.fixture(scope="module")
def undivided(tmp_path_factory):
    """A table without splits."""
    return write_parquet(
        tmp_path_factory.mktemp("undivided") / "t.parquet", [r | {"split": ""} for r in rows(24)]
    )


@pytest.mark.parametrize(
    ("more", "stop"),
    [
        ({"save_every": 1}, 5),
        ({"save_every": 1, "trainer.limit_train_batches": 3}, 3),
        ({"save_every": 1, "trainer.limit_train_batches": 0.5}, 3),
        ({"save_every": 1, "trainer.accumulate_grad_batches": 2}, 6),
        ({"trainer.limit_train_batches": 3}, 4),
        ({}, 5),
    ],
)
def test_interrupted_and_resumed_run_sees_the_rows_of_a_whole_one(quick, tmp_path, more, stop):
    more = {"trainer.max_epochs": 2, "trainer.limit_val_batches": 0, **more}
    whole = seen(quick(tmp_path / "whole", **more))
    first = seen(quick(tmp_path / "out", **more), stop)
    rest = seen(quick(tmp_path / "out", **more, ckpt_path="last"))
    per_epoch = len(whole) // 2
    kept = stop if "save_every" in more else stop // per_epoch * per_epoch
    assert first[:kept] + rest == whole


@pytest.fixture(scope="module")
def interrupted(backbone, undivided, features, tmp_path_factory):
    """Flags, and the checkpoints, of a run that ended after two of its batches."""
    folder = tmp_path_factory.mktemp("interrupted")
    base = {
        "model.train_tokens": "false",
        "model.cache.folder": features,
        "trainer.logger": "false",
        "save_every": 1,
    }
    base |= {"data.tune_fraction": 0.2, "trainer.max_epochs": 1}

    def made(out, **more):
        return flags(backbone, undivided, out, **{**base, **more})

    seen(made(folder / "out"), 2)
    return made, folder / "out.run" / "checkpoints" / "last.ckpt"


def test_other_options_and_rows_are_refused_by_name(interrupted, tmp_path):
    made, path = interrupted
    other = [row | {"split": "", "prompt": "?"} for row in rows(24)]
    values = Taxonomy.preset("safevlm").to_dict()
    values["categories"][1]["guidance"] = "be kind"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    changes = {
        "data.batch_size": 8,
        "data.seed": 1,
        "data.tune_fraction": 0.3,
        "data.table": write_parquet(tmp_path / "t.parquet", other),
        "data.clean": write_parquet(tmp_path / "clean.parquet", other[::2]),
        "trainer.accumulate_grad_batches": 2,
        "trainer.limit_train_batches": 2,
        "model.sizes.taxonomy": tmp_path / "own.yaml",
        "model.sizes.num_heads": 2,
        "model.schedule.lr": 2e-3,
    }
    with pytest.raises(CheckpointError, match=r"other options or rows: .*resume with the options") as refused:
        command("head", made(tmp_path / "out", ckpt_path=path, **changes)).fit()
    for told in (
        r"data\.batch_size was 4, is now 8",
        r"data\.seed was 0, is now 1",
        r"data\.tune_fraction was 0\.2, is now 0\.3",
        r"training rows \(data\.table\) was \d+ rows \w+, is now \d+ rows \w+",
        r"clean rows \(data\.clean\) was 0 rows \w+, is now 12 rows \w+",
        r"accumulate_grad_batches was 1, is now 2",
        r"limit_train_batches was 1\.0, is now 2",
        r"model\.sizes\.taxonomy was safevlm \w+, is now safevlm \w+",
        r"model\.sizes\.num_heads was 4, is now 2",
        r"model\.schedule\.lr was 0\.001, is now 0\.002",
    ):
        assert re.search(told, str(refused.value)), told
    assert not (tmp_path / "out").exists()


def test_another_start_of_frozen_weights_is_refused_alone(interrupted, tmp_path):
    made, path = interrupted
    told = r"other options or rows: frozen safety weights [^;]* was \w+, is now \w+\. "
    with pytest.raises(CheckpointError, match=told):
        command("head", made(tmp_path / "out", ckpt_path=path, seed_everything=5)).fit()


@pytest.mark.parametrize(
    "change",
    [
        {"data.workers": 1, "trainer.log_every_n_steps": 1, "save_every": 2, "data.table": "moved"},
        {"trainer.max_epochs": 2},
    ],
)
def test_harmless_changes_pass(interrupted, undivided, tmp_path, change):
    made, path = interrupted
    if change.get("data.table"):
        change = change | {"data.table": shutil.copy(undivided, tmp_path / "moved.parquet")}
    whole = seen(made(tmp_path / "whole", **change))
    assert seen(made(tmp_path / "out", ckpt_path=path, **change)) == whole[2:]


def test_every_option_is_compared_or_known_to_be_harmless(interrupted):
    record = torch.load(interrupted[1], weights_only=True)[KEY]
    harmless = {
        "backbone", "checkpoint",  # compared by their weights
        "output_dir", "overwrite", "refusal_rows", "gradient_checkpointing", "cache.folder", "cache.batch_size",
        "table", "clean", "skip_bad",  # compared by their rows
        "workers",
        "operating.false_positive_rate", "operating.prior", "operating.reading_category", "operating.reading_recall",
        "operating.keep",
    }  # fmt: skip
    groups = {
        "sizes": Sizes,
        "schedule": Schedule,
        "loss": Loss,
        "operating": Operating,
        "cache": Cache,
        "lora": Lora,
    }
    joint = JointTraining(backbone="none").own_options()
    for kind in (HeadTraining, JointTraining, SafetyDataModule):
        prefix = "data" if kind is SafetyDataModule else "model"
        for name in list(inspect.signature(kind.__init__).parameters)[1:]:
            fields = (
                [f"{name}.{field.name}" for field in dataclasses.fields(groups[name])]
                if name in groups
                else [name]
            )
            for field in fields:
                assert field in harmless or f"{prefix}.{field}" in {**record, **joint}, field


def test_shorter_run_and_missing_record_are_refused():
    refuse_changes({STEPS: 8}, {STEPS: 12})
    with pytest.raises(CheckpointError, match=r"trainer\.max_epochs.* was 8, is now 6"):
        refuse_changes({STEPS: 8}, {STEPS: 6})
    with pytest.raises(CheckpointError, match="does not say which options"):
        refuse_changes(None, {})
    with pytest.raises(CheckpointError, match="b was None, is now 1"):
        refuse_changes({}, {"b": 1})


def test_last_is_the_last_of_the_newest_run_and_an_older_one_is_set_aside(quick, tmp_path, table):
    out, more = tmp_path / "out", {"trainer.limit_val_batches": 0, "model.overwrite": "true"}
    folder = tmp_path / "out.run" / "checkpoints"
    seen(quick(out, **more, **{"trainer.max_epochs": 3}))
    earlier = {path.name: path.read_bytes() for path in folder.iterdir()}
    seen(quick(out, **more, **{"data.batch_size": 8, "trainer.max_epochs": 2}), 3)
    assert {path.name: path.read_bytes() for path in folder.with_name("checkpoints-1").iterdir()} == earlier
    rest = seen(quick(out, **more, **{"data.batch_size": 8, "trainer.max_epochs": 2, "ckpt_path": "last"}))
    assert [epoch for epoch, _ in rest] == [1, 1]  # of the second run, after its first epoch
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        command("head", quick(tmp_path / "new", ckpt_path="last")).fit()
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        command("head", quick(tmp_path / "new", ckpt_path=tmp_path / "none.ckpt")).fit()


def test_more_processes_than_rows_have_a_batch_each(quick, tmp_path, backbone):
    few = rows(2, tune=1)
    few[0] |= {"risk_level": "refuse", "risk_category": "illegal"}
    table = write_parquet(tmp_path / "t.parquet", few)
    more = {
        "trainer.strategy": "ddp_fork",
        "trainer.devices": 2,
        "trainer.max_epochs": 2,
        "data.table": table,
    }
    command("head", quick(tmp_path / "out", **more)).fit()
    assert (tmp_path / "out" / "safety.safetensors").is_file()
