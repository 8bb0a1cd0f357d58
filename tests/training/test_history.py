"""What a run tells while it trains: a line per epoch, counts before it, nothing of Lightning's, nothing twice."""

from __future__ import annotations

import logging
import re
import shlex
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from safevlm.training.class_counts import log_class_counts
from safevlm.training.cli import command
from safevlm.training.command import resuming
from safevlm.training.console import EpochBar

from safevlm import Taxonomy
from safevlm.errors import TrainingInterrupted
from safevlm.labelled import LabelledRow

from .builders import rows, write_parquet


class Watch(Callback):
    """Rows, losses and tune metrics as the trainer has them; may interrupt the run in a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.seen: list[dict[str, float]] = []
        self.tuned: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        values = {
            name: float(trainer.callback_metrics[f"train/{name}"])
            for name in ("loss", "lm", "level", "category")
        }
        self.seen.append({"rows": len(batch["levels"]), **values})
        if trainer.global_step == self.stop:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer, module):
        self.tuned.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]


def test_a_line_after_each_epoch_has_the_means_and_the_tune_metrics(quick, tmp_path, caplog):
    table = write_parquet(tmp_path / "t.parquet", rows(30, tune=16))  # 14 training rows: the last batch has 2
    made = command("head", quick(tmp_path / "out", **{"data.table": table}))
    watch = Watch()
    made.trainer.callbacks.append(watch)
    made.fit()
    told = lines(caplog)
    assert [line.split(":")[0] for line in told] == ["epoch 1/2", "epoch 2/2"]
    for epoch, line in enumerate(told):
        batches = watch.seen[epoch * 4 : epoch * 4 + 4]
        assert [batch["rows"] for batch in batches] == [4, 4, 4, 2]
        numbers = dict(re.findall(r"(loss|lm|level|category) ([\d.e+-]+)", line.split(";")[0]))
        for name, told_value in numbers.items():
            mean = sum(batch["rows"] * batch[name] for batch in batches) / 14
            assert float(told_value) == pytest.approx(mean, rel=1e-3, abs=1e-6), name
        tuned = watch.tuned[epoch]
        for text, name in (("tune loss", "loss"), ("AUROC", "auroc"), ("level accuracy", "level_accuracy")):
            value = re.search(rf"{text} ([\d.e+-]+)", line)
            assert value, line
            assert float(value[1]) == pytest.approx(tuned[f"tune/{name}"], rel=5e-3)
    assert "the best so far" in told[0]


def test_a_long_epoch_tells_how_far_it_is(quick, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("safevlm.training.history.LINE_EVERY", 0.0)
    made = command("head", quick(tmp_path / "out", **{"trainer.max_epochs": 1}))
    watch = Watch()
    made.trainer.callbacks.append(watch)
    made.fit()
    mean = sum(batch["loss"] for batch in watch.seen[:3]) / 3  # of equal batches
    assert f"epoch 1/1: 3 of 4 batches, loss {mean:.4g}, " in caplog.text


def test_temperature_and_threshold_of_each_epoch_are_those_that_the_folder_gets(quick, tmp_path, caplog):
    noisy = rows(80, tune=64)
    for number, row in enumerate(noisy[16:]):  # so that a temperature exists: some labels are wrong
        if number % 9 == 0:
            row["risk_level"] = "safe" if row["risk_level"] == "refuse" else "refuse"
    table = write_parquet(tmp_path / "t.parquet", noisy)
    options = {"data.table": table, "export": "last", "model.operating.false_positive_rate": 0.2}
    made = command("head", quick(tmp_path / "out", **options))
    made.fit()
    written = made.model.config
    assert written.calibration is not None
    assert written.operating_point is not None
    last = made.model.history.tuned[-1]
    assert last["tune/temperature"] == pytest.approx(written.calibration.temperature, rel=1e-4)
    assert last["tune/threshold"] == pytest.approx(written.operating_point.threshold, abs=1e-4)
    assert f"temperature {written.calibration.temperature:.3g}" in lines(caplog)[-1]
    assert (
        caplog.text.count("calibration: temperature") == 1
    )  # the end of the run tells it, the epochs do not


def test_nothing_is_told_twice_and_nothing_by_lightning(quick, tmp_path, caplog):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        made = command("head", quick(tmp_path / "out"))
        made.fit()
    assert [str(one.message) for one in warned if "lightning" in one.filename] == []
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told))
    assert {record.name.split(".")[0] for record in caplog.records} == {"safevlm"}
    assert logging.getLogger("lightning.pytorch").level != logging.WARNING  # as it was


def test_class_counts_come_first_and_classes_without_tune_rows_are_warned_of(quick, tmp_path, caplog):
    made_up = rows(12, tune=4)
    made_up[0]["risk_level"], made_up[0]["risk_category"] = "caution", "privacy"
    table = write_parquet(tmp_path / "t.parquet", made_up)
    command("head", quick(tmp_path / "out", **{"data.table": table, "trainer.max_epochs": 1})).fit()
    counts = "train / tune images by level: safe 3 / 2, caution 1 / 0, restrict 0 / 0, refuse 4 / 2"
    assert caplog.text.index(counts) < caplog.text.index("epoch 1/1")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(line.startswith("level without tune rows: caution;") for line in warned)
    assert any(line.startswith("category without tune rows: privacy;") for line in warned)


def test_class_counts_leave_out_text_and_name_what_cannot_be_learned(caplog):
    taxonomy = Taxonomy.preset("safevlm-mini")

    def row(level: int, category: int, *, image: bool = True) -> LabelledRow:
        return LabelledRow(b"x" if image else None, "", "", "", level, category, "", "")

    log_class_counts([row(0, 0), row(1, 1, image=False)], [row(0, 0), row(2, 3)], taxonomy)
    assert "safe 1 / 1, caution 0 / 0, restrict 0 / 1" in caplog.text
    assert "category with tune rows and no training rows: fire; the head cannot learn them" in caplog.text
    assert "without tune rows" not in caplog.text


def test_ctrl_c_tells_the_command_that_goes_on_and_its_run_equals_an_undisturbed_one(quick, tmp_path):
    options = {"save_every": 1, "data.batch_size": 2, "trainer.max_epochs": 2}
    whole = command("head", quick(tmp_path / "whole dir", **options))
    whole.fit()
    broken = command("head", quick(tmp_path / "broken dir", **options))
    broken.trainer.callbacks.append(Watch(stop=11))
    with pytest.raises(TrainingInterrupted) as stopped:
        broken.fit()
    told = str(stopped.value).partition("broken dir.run/checkpoints/last.ckpt: ")[2]
    words = shlex.split(told)
    assert words[:3] == ["safevlm", "train", "head"]
    resumed = command(words[2], words[3:])
    resumed.fit()
    assert (tmp_path / "broken dir" / "safety_config.json").is_file()
    for point, other in zip(resumed.model.history.losses, whole.model.history.losses, strict=True):
        assert point == pytest.approx(other)
    assert [one["step"] for one in resumed.model.history.tuned] == [8, 16]


def test_the_command_that_goes_on_has_one_checkpoint():
    for given in (["--ckpt_path", "old file"], ["--ckpt_path=old file"], []):
        told = resuming("safevlm train head", [*given, "--data.table", "my table.parquet"])
        assert told == "safevlm train head --data.table 'my table.parquet' --ckpt_path last"


def test_a_terminal_gets_a_bar_and_a_file_none(quick, tmp_path, monkeypatch):
    argv = [flag for flag in quick(tmp_path / "out") if "enable_progress_bar" not in flag]
    assert command("head", argv).trainer.progress_bar_callback is None
    monkeypatch.setattr("safevlm.training.command.is_terminal", lambda: True)
    made = command("head", argv)
    assert isinstance(made.trainer.progress_bar_callback, EpochBar)
    assert Path(made.trainer.default_root_dir) == tmp_path / "out.run"
