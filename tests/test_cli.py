"""The real command line on the embedded model, as a user calls it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docstring_parser import parse as docstring
from PIL import Image
from safevlm.training.mini.scenes import render

from safevlm import checkpoint
from safevlm.cli import main
from safevlm.commands import COMMANDS
from safevlm.config import OperatingPoint
from safevlm.evals import COLUMNS


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed, kind in enumerate(["risky", "ordinary", "lookalike"]):
        render(seed, "test", kind, 128).image.save(folder / f"{kind}.png")
    return folder


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def test_info_json(capsys):
    code, out = run(capsys, "info", "--json")
    found = json.loads(out.out)
    assert code == 0
    assert {"safevlm-mini", "safevlm-mini-base"} <= set(found["checkpoints"])
    assert all(len(digest) == 64 for files in found["checkpoints"].values() for digest in files.values())
    assert found["versions"]["torch"]
    point = checkpoint.load_config(checkpoint.fetch("safevlm-mini")).operating_point
    assert found["operating_points"]["safevlm-mini"] == (point and dataclasses.asdict(point))


@pytest.mark.parametrize(
    ("earlier", "name"), [("--sample", "--sample-fraction"), ("--max-error-share", "--max-error-rate")]
)
def test_scan_takes_the_earlier_names_of_its_flags(capsys, images, tmp_path, earlier, name):
    for flags in ([earlier, "0.5"], [f"{earlier.replace('-', '_').replace('__', '--')}=0.5"], [name, "0.5"]):
        code, out = run(capsys, "scan", images, "--out", tmp_path / "out", *flags)
        assert code == 0, out.err
        assert "deprecated" not in out.err
    settings = json.loads((tmp_path / "out/summary.json").read_text())["settings"]
    assert settings["sample"] == ("0.5" if name == "--sample-fraction" else "all")


def test_assess_json_and_table_agree(capsys, images):
    code, out = run(capsys, "assess", images / "risky.png", images / "ordinary.png", "--json")
    rows = [json.loads(line) for line in out.out.splitlines()]
    assert code == 0
    assert [row["image"] for row in rows] == [str(images / "risky.png"), str(images / "ordinary.png")]
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert sum(rows[0]["level_probabilities"].values()) == pytest.approx(1)
    code, out = run(capsys, "assess", images / "risky.png")
    assert f"{rows[0]['score']:.2f}" in out.out


def test_assess_says_what_threshold_is_in_use_and_where_it_is_from(capsys, images, tmp_path):
    config = checkpoint.load_config(checkpoint.fetch("safevlm-mini"))
    point = OperatingPoint(0.1234, 0.03, "photographs, tune split", 400)
    (tmp_path / "policy.yaml").write_text("rule: argmax\n")
    for chosen, more, threshold, told in (
        (point, (), 0.1234, "score >= 0.123, chosen for at most 3 % false positives on 400 safe items"),
        (None, (), 0.5, "score >= 0.5, the default"),
        (point, ("--policy", tmp_path / "policy.yaml"), None, "argmax, by"),
    ):
        folder = Path(
            shutil.copytree(checkpoint.fetch("safevlm-mini"), tmp_path / "model", dirs_exist_ok=True)
        )
        (folder / checkpoint.CONFIG).write_text(config.with_changes(operating_point=chosen).to_json())
        _, out = run(capsys, "assess", images / "ordinary.png", "--model", folder, "--json", *more)
        row = json.loads(out.out)
        assert row["threshold"] == threshold
        assert row["rule"].startswith(told)
        _, out = run(capsys, "assess", images / "ordinary.png", "--model", folder, *more)
        assert f"unsafe: {told[:20]}" in out.out


def test_assess_writes_a_heatmap(capsys, images, tmp_path):
    code, _ = run(capsys, "assess", images / "risky.png", "--heatmap", tmp_path / "map.png")
    assert code == 0
    assert Image.open(tmp_path / "map.png").size == (128, 128)
    code, out = run(
        capsys, "assess", images / "risky.png", images / "ordinary.png", "--heatmap", tmp_path / "x.png"
    )
    assert code == 1
    assert "single image" in out.err


def test_an_unreadable_image_is_said_and_fails(capsys, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    code, out = run(capsys, "assess", images / "ordinary.png", tmp_path / "broken.png", "--json")
    rows = [json.loads(line) for line in out.out.splitlines()]
    assert code == 1
    assert rows[0]["verdict"] != "undecided"
    assert rows[1]["verdict"] == "undecided"
    assert rows[1]["score"] is None


def test_flags_come_from_a_config_file_too(capsys, images, tmp_path):
    (tmp_path / "policy.yaml").write_text("threshold: 1.0e-9\n")
    (tmp_path / "assess.yaml").write_text(f"policy: {tmp_path / 'policy.yaml'}\njson: true\n")
    code, out = run(capsys, "assess", "--config", tmp_path / "assess.yaml", images / "ordinary.png")
    assert code == 0
    assert json.loads(out.out)["verdict"] == "unsafe"


def test_a_folder_is_assessed_and_a_threshold_decides(capsys, images, tmp_path):
    folder = Path(shutil.copytree(images, tmp_path / "folder"))
    (folder / "broken.png").write_bytes(b"nothing")
    code, out = run(capsys, "assess", folder, images / "risky.png", "--json", "--threshold", "0.00001")
    rows = {row["image"]: row for row in map(json.loads, out.out.splitlines())}
    assert code == 1
    names = ("broken", "lookalike", "ordinary", "risky")
    assert list(rows) == [*(str(folder / f"{name}.png") for name in names), str(images / "risky.png")]
    assert rows[str(folder / "broken.png")]["verdict"] == "undecided"
    assert "broken.png" in rows[str(folder / "broken.png")]["reason"]
    scored = [row for name, row in rows.items() if "broken" not in name]
    assert {row["verdict"] for row in scored} == {"unsafe"}
    assert {row["rule"] for row in scored} == {"score >= 1e-05, by --threshold"}
    assert rows[str(folder / "risky.png")]["score"] == pytest.approx(scored[-1]["score"], abs=1e-5)
    code, out = run(capsys, "assess", folder, "--heatmap", tmp_path / "x.png")
    assert (code, "a folder was given" in out.err) == (1, True)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.fullmatch(r"safevlm \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def importing(module):
    def info() -> int:
        """Import something."""
        return len(dir(importlib.import_module(module)))

    return info


def test_a_missing_package_of_an_extra_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(COMMANDS, "info", importing("pyarrow"))
    code, out = run(capsys, "info")
    assert code == 1
    assert "needs the package 'pyarrow'" in out.err
    assert "pip install 'safevlm[data]'" in out.err
    monkeypatch.setitem(COMMANDS, "info", importing("nowhere"))
    with pytest.raises(ModuleNotFoundError):
        main(["info"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["assess", "x.png", "--model", "nobody/nothing"], 1, "cannot find the checkpoint"),
        (["assess", "x.png", "--policy", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["chat", "nowhere.png"], 1, "nowhere.png"),
        (["scan", "nowhere", "--out", "out"], 1, "nowhere"),
        (["demo", "--images", "0"], 1, "at least one image"),
        (["train"], 2, "head,joint"),
        (["train", "everything"], 2, "head,joint"),
    ],
)
def test_errors_are_one_line_and_a_code(capsys, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    got, out = run(capsys, *arguments)
    assert got == code
    assert message in out.err
    assert "Traceback" not in out.err


def help_of(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main([*words.split(), "--help"])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", COMMANDS)
def test_the_help_of_every_argument_is_that_of_the_docstring(capsys, words):
    function = COMMANDS[words]
    described = {entry.arg_name: entry.description for entry in docstring(function.__doc__).params}
    assert list(described) == list(signature(function).parameters)
    shown = help_of(capsys, words)
    for text in described.values():
        assert " ".join(text.split()) in shown


COUNT = """
from __future__ import annotations

def count(files: list[str], *, unit: str = "bytes", twice: bool = False) -> int:
    '''Count something.

    Args:
        files: files to count in.
        unit: what is counted.
        twice: count everything twice.
    '''
    print(files, unit, twice)
    return 0
"""


def test_a_command_is_one_file_and_one_registration(capsys, monkeypatch, tmp_path):
    (tmp_path / "count.py").write_text(COUNT)
    spec = importlib.util.spec_from_file_location("count", tmp_path / "count.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "count", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(COMMANDS, "count", module.count)
    code, out = run(capsys, "count", "a", "b", "--twice", "--unit", "lines")
    assert (code, out.out) == (0, "['a', 'b'] lines True\n")
    assert "files files to count in. (required, type: str)" in help_of(capsys, "count")
    assert "count Count something." in help_of(capsys, "")


def test_help_loads_no_torch():
    code = "import sys; from safevlm.cli import build_parser; build_parser().format_help(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("arguments", [["assess", "x.png", "--colour"], ["paint"], [], ["scan"]])
def test_wrong_usage_exits_with_two(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_chat_once_with_and_without_the_guard(capsys, images):
    ask = ["chat", images / "ordinary.png", "--prompt", "What is in this image?", "--max-new-tokens", 16]
    code, out = run(capsys, *ask)
    assert code == 0
    assert "score" in out.out
    code, plain = run(capsys, *ask, "--no-guard")
    assert code == 0
    assert plain.out.strip()
    assert "score" not in plain.out


def test_chat_steered_by_a_direction(capsys, images, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    deeds = (("rob a bank", "paint a bench"), ("burn a house", "build a house"), ("hurt a dog", "walk a dog"))
    lines = [{"harmful": f"How do I {bad}?", "harmless": f"How do I {good}?"} for bad, good in deeds]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out = run(capsys, "steer", "fit", "--pairs", pairs, "--out", tmp_path / "direction", "--rank", 1)
    assert code == 0, out.err
    ask = ["chat", images / "ordinary.png", "--prompt", "What is it?", "--max-new-tokens", 8, "--no-guard"]
    code, out = run(capsys, *ask, "--steer", tmp_path / "direction")
    assert code == 0, out.err
    assert out.out.strip()
    code, out = run(capsys, *ask, "--steer", tmp_path)
    assert code == 1
    assert "safevlm steer fit" in out.err


def test_scan_writes_rows_and_a_summary(capsys, images, tmp_path):
    code, out = run(capsys, "scan", images, "--out", tmp_path / "out", "--batch-size", 2)
    rows = pq.read_table(tmp_path / "out" / "rows").to_pylist()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert code == 0
    assert {row["id"] for row in rows} == {"risky.png", "ordinary.png", "lookalike.png"}
    assert summary["n"] == 3
    assert "3 images" in out.out
    assert (tmp_path / "out" / "report.html").is_file()
    code, out = run(capsys, "scan", images, "--out", tmp_path / "out", "--resume")
    assert (code, "3 images" in out.out) == (0, True)
    code, out = run(capsys, "scan", images, "--out", tmp_path / "out", "--limit", 2)
    assert code == 1
    assert "limit was none, is 2" in out.err
    assert "--fresh" in out.err
    code, out = run(capsys, "scan", images, "--out", tmp_path / "none", "--resume")
    assert (code, "holds no scan" in out.err) == (1, True)


def test_export_and_merge(capsys, images, tmp_path):
    for name in ("risky", "ordinary"):
        data = (images / f"{name}.png").read_bytes()
        pq.write_table(pa.table({"id": [name], "image": [data]}), tmp_path / f"{name}.parquet")
        code, _ = run(capsys, "scan", tmp_path / f"{name}.parquet", "--out", tmp_path / "scans" / name)
        assert code == 0
    scans = [tmp_path / "scans" / name for name in ("ordinary", "risky")]
    code, out = run(capsys, "merge", *scans, "--out", tmp_path / "all")
    assert (code, "2 images" in out.out) == (0, True)
    listed = tmp_path / "list.txt"
    code, out = run(
        capsys, "export", tmp_path / "all", "--out", listed, "--keep", "safe,unsafe", "--format", "txt"
    )
    assert (code, out.out.startswith("2 samples")) == (0, True)
    assert listed.read_text().split() == ["ordinary", "risky"]
    code, out = run(capsys, "export", tmp_path / "all", "--out", listed, "--keep", "error")
    assert (code, "nothing to keep" in out.err) == (1, True)


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_scan_and_says_how_to_go_on(number, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    Image.new("RGB", (2500, 2500)).save(folder / "0000.jpg")  # small as a file, slow to decode
    data = (folder / "0000.jpg").read_bytes()
    for index in range(1, 1500):  # bytes behind the end of a JPEG are not read, and make it another file
        (folder / f"{index:04d}.jpg").write_bytes(data + str(index).encode())
    command = [sys.executable, "-m", "safevlm.cli", "scan", str(folder), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--batch-size", "1"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    rows = tmp_path / "out" / "rows"
    while not list(rows.glob(".part-*")):  # however long a busy machine takes to get there
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert f"Go on with:\n  safevlm scan {folder} --out {tmp_path}/out --batch-size 1 --resume\n" in errors
    assert "Traceback" not in errors
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["interrupted"]
    assert not list(rows.glob(".part-*"))


@pytest.mark.slow
def test_demo_shows_and_writes_everything(capsys, tmp_path):
    code, out = run(capsys, "demo", "--out", tmp_path / "demo", "--images", 8)
    assert code == 0
    assert "without the guard" in out.out
    page = (tmp_path / "demo" / "index.html").read_text()
    assert page.count("data:image/") >= 8
    assert pq.read_table(tmp_path / "demo" / "scan" / "rows").num_rows == 8
    code, _ = run(
        capsys, "demo", "--out", tmp_path / "demo", "--images", 4
    )  # a second run replaces the first
    assert code == 0
    assert pq.read_table(tmp_path / "demo" / "scan" / "rows").num_rows == 4


def test_demo_removes_nothing_that_it_did_not_write(capsys, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"mine")
    code, out = run(capsys, "demo", "--out", tmp_path, "--images", 4)
    assert code == 1
    assert "holiday.jpg" in out.err
    assert (tmp_path / "images" / "holiday.jpg").read_bytes() == b"mine"


@pytest.mark.slow
def test_eval_mini_json_has_the_documented_form(capsys):
    code, out = run(capsys, "eval", "mini", "--json", "--n", 4)
    table = json.loads(out.out)
    assert code == 0
    assert set(table) >= {"plain", "tokens", "head_hint", "stage1", "stage2"}
    for row in table.values():
        things = row.pop("per_thing")
        assert set(row) == set(COLUMNS)
        assert row["auroc_photos"] is None
        assert sum(counts["n"] for counts in things["words"].values()) == 4
        for column, cell in row.items():
            if cell is not None:
                assert set(cell) == {"value", "low", "high", "n", "things", "templates"}
                least = -1 if column.startswith("accuracy_lost") else 0
                assert least <= cell["low"] <= cell["value"] <= cell["high"] <= 1


def test_eval_mini_of_chosen_rows_and_sets(capsys):
    chosen = ("--n", 4, "--split", "tune", "--rows", "head_hint", "--sets", "words, typographic")
    code, out = run(capsys, "eval", "mini", "--json", *chosen)
    (row,) = json.loads(out.out).values()
    assert code == 0
    assert {column for column, cell in row.items() if cell and column != "per_thing"} >= {
        "refused_words", "complied_typographic", "auroc_words", "recall_words", "flagged_words",
    }  # fmt: skip
    assert row["refused_ordinary"] is None
    for option, name in (("--rows", "stage9"), ("--sets", "wrods")):
        code, out = run(capsys, "eval", "mini", option, name)
        assert code != 0
        assert name in out.err
