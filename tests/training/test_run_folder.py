"""What a run leaves beside its folder: plots, and an evaluation of the table's test rows."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from safevlm.training.cli import command
from safevlm.training.plots import AUROC, LOSS, RELIABILITY, SCORES

from safevlm.cli import main

from .builders import png, rows, shade, write_parquet

PLOTS = {LOSS, AUROC, RELIABILITY, SCORES}


def plots(folder):
    return {path.name for path in folder.glob("*.png")}


def test_plots_of_a_run_and_none_of_an_earlier_one(quick, tmp_path):
    run = tmp_path / "out.run"
    command("head", quick(tmp_path / "out")).fit()
    assert plots(run) == set()  # no logger, no records
    logger = {
        "trainer.logger": "CSVLogger",
        "trainer.logger.save_dir": tmp_path / "logs",
    }  # as a user names one
    logged = {**logger, "model.overwrite": "true", "trainer.max_epochs": 1}
    command("head", quick(tmp_path / "out", **logged)).fit()
    assert plots(run) == PLOTS
    assert list((tmp_path / "logs").rglob("metrics.csv"))
    for name in PLOTS:
        assert Image.open(run / name).size[0] >= 500
    table = write_parquet(tmp_path / "t.parquet", rows(8))
    command("head", quick(tmp_path / "out", **logged, **{"data.table": table, "data.tune_fraction": 0})).fit()
    assert plots(run) == {LOSS}


@pytest.fixture
def with_test_rows(tmp_path):
    """A table with rows of all three splits."""
    held_out = rows(12)
    for number, row in enumerate(held_out):
        row |= {"split": "test", "image": {"bytes": png(shade(3 * (number % 2), 700 + number)), "path": None}}
    return write_parquet(tmp_path / "split.parquet", rows(24, tune=8) + held_out)


def test_test_rows_are_measured_as_eval_data_does(quick, with_test_rows, tmp_path, capsys):
    out = tmp_path / "out"
    argv = quick(out, **{"data.table": with_test_rows, "trainer.max_epochs": 1})
    assert main(["train", "head", *argv]) == 0
    told = capsys.readouterr().out
    assert "test rows" in told
    assert str(tmp_path / "out.run" / "test.html") in told
    asked = ["eval", "data", str(with_test_rows), "--model", str(out), "--split", "test", "--device", "cpu"]
    assert main([*asked, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out.run" / "test.json").read_text()) == expected
    assert expected["images"] == 12
    assert "<title>Evaluation on labelled images" in (tmp_path / "out.run" / "test.html").read_text()
    assert main(["train", "head", *quick(out, **{"model.overwrite": "true", "trainer.max_epochs": 1})]) == 0
    assert not list((tmp_path / "out.run").glob("test.*"))  # this run's table has no test rows


def test_test_rows_that_cannot_be_measured_are_an_error_after_the_folder(quick, tmp_path, capsys):
    twice = rows(2)
    for row in twice:
        row |= {"split": "test", "image": {"bytes": png(shade(0, 900)), "path": None}}
    table = write_parquet(tmp_path / "twice.parquet", rows(24, tune=8) + twice)
    assert (
        main(["train", "head", *quick(tmp_path / "out", **{"data.table": table, "trainer.max_epochs": 1})])
        == 1
    )
    told = capsys.readouterr().err
    assert f"{tmp_path / 'out'} is written, but the test rows" in told
    assert "correct one of them" in told
    assert (tmp_path / "out" / "safety_config.json").is_file()
