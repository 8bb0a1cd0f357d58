"""A scan's marks train the model that made the scan: the head changes, LoRA, backbone and thresholds stay."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safevlm.training.cli import command, train
from safevlm.training.mini.scenes import render
from safevlm.training.options import Operating

from safevlm import SafeVLM, checkpoint
from safevlm.cli import main
from safevlm.config import Calibration, OperatingPoint
from safevlm.errors import CheckpointError
from tests.scan.tiny_checkpoint import rows_of

from .builders import flags, snapshot


@pytest.fixture(scope="module")
def joint(backbone, table, tmp_path_factory):
    """A checkpoint with LoRA layers, and with a calibration and an operating point as those of many rows."""
    folder = tmp_path_factory.mktemp("joint") / "joint"
    options = {"model.lora.r": 2, "model.refusal_rows": 0, "trainer.max_epochs": 1, "trainer.logger": "false"}
    train("joint", flags(backbone, table, folder, **options, **{"model.schedule.lr": 5e-3}))
    config = checkpoint.load_config(folder)
    points = {
        "calibration": Calibration(1.5, "many rows", 1000, share=0.5, prior=0.1),
        "operating_point": OperatingPoint(0.3, 0.03, "many rows", 1000),
    }
    (folder / checkpoint.CONFIG).write_text(config.with_changes(**points).to_json())
    return folder


@pytest.fixture
def continued(joint, backbone, table, tmp_path):
    """Flags of a stage 1 run that continues it."""

    def made(**more):
        options = {
            "model.checkpoint": joint,
            "model.cache.folder": tmp_path / "cache",
            "trainer.logger": "false",
        }
        fresh = {f"model.sizes.{name}": None for name in ("hidden_dim", "depth", "num_tokens", "num_heads")}
        return flags(backbone, table, tmp_path / "out", **{**fresh, **options, **more})

    return made


@pytest.mark.parametrize("tokens", ["false", "true"])
def test_stage_1_continues_a_joint_checkpoint_and_leaves_its_lora_layers(tokens, continued, joint, tmp_path):
    made = command("head", continued(**{"model.train_tokens": tokens, "trainer.max_epochs": 1}))
    made.fit()
    out = tmp_path / "out"
    assert not any("lora_" in name for name in made.model.trained)
    for old, new in zip(checkpoint.lora_files(joint), checkpoint.lora_files(out), strict=True):
        assert old.read_bytes() == new.read_bytes()
    before, after = SafeVLM.from_pretrained(joint), SafeVLM.from_pretrained(out)
    assert after.has_lora
    llm = snapshot(after.language_model)
    for name, value in snapshot(before.language_model).items():
        assert torch.equal(value, llm[name]), name
    changed = {
        name
        for name, value in before.safety.state_dict().items()
        if not torch.equal(value, after.safety.state_dict()[name])
    }
    assert {name.split(".")[0] for name in changed} == {"projector", "tokens", "head"}
    assert ("tokens.prompt" in changed) is (tokens == "true")


def test_missing_lora_layers_are_found_before_training(continued, joint, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in joint.iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    made = command("head", continued(**{"model.checkpoint": broken, "model.train_tokens": "false"}))
    with pytest.raises(CheckpointError, match="adapter_config.json is missing"):
        made.fit()
    assert made.trainer.global_step == 0


def test_thresholds_stay_where_they_are_kept_and_tell_what_came_after(
    continued, joint, table, tmp_path, caplog
):
    options = {"model.train_tokens": "false", "trainer.max_epochs": 1}
    train("head", continued(**options, **{"model.operating.keep": "true"}))
    before, after = checkpoint.load_config(joint), checkpoint.load_config(tmp_path / "out")
    for name in ("calibration", "operating_point"):
        old, new = getattr(before, name), getattr(after, name)
        assert new.data == f"many rows, before training on {table.name}"
        assert replace(new, data=old.data) == old
    assert "no operating point" not in caplog.text
    train("head", continued(**options, **{"model.overwrite": "true"}))
    after = checkpoint.load_config(tmp_path / "out")
    assert (after.calibration, after.operating_point) == (None, None)  # too few tune rows for new ones


def test_there_must_be_thresholds_to_keep(quick, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint .* to keep"):
        command("head", quick(tmp_path / "out", **{"model.operating.keep": "true"}))
    for name, value in (("prior", 0.1), ("reading_category", "privacy")):
        with pytest.raises(ValueError, match="have no effect"):
            Operating(keep=True, **{name: value})


SCENES = tuple((seed, kind) for seed in range(4) for kind in ("risky", "ordinary", "lookalike"))


def marked(row, truth):
    """The line that the report's page writes when a person who knows the truth looks at a row."""
    flagged = row["verdict"] == "unsafe"
    right = flagged == (truth[row["id"]][0] != "safe")
    level, category = (row["level"], row["category"]) if right else truth[row["id"]]
    where = {name: row[name] for name in ("source", "shard", "index", "id", "sha256", "score")}
    return {**where, "risk_level": level, "risk_category": category, "mark": "right" if right else "wrong"}


@pytest.mark.slow
def test_marks_of_a_scan_by_the_default_model_train_it_and_the_next_scan_has_fewer_of_the_mistakes(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    truth = {}
    for seed, kind in SCENES:
        scene = render(seed, "test", kind, 224)
        scene.image.save(tmp_path / "images" / f"{kind}{seed}.png")
        truth[f"{kind}{seed}.png"] = (scene.risk_level, scene.risk_category)
        if (
            kind == "lookalike"
        ):  # harmless for the model; this person wants to see what resembles a warning, too
            truth[f"{kind}{seed}.png"] = ("restrict", "hazards")
    assert main(["scan", "images", "--out", "before", "--device", "cpu"]) == 0
    marks = [marked(row, truth) for row in rows_of(tmp_path / "before")]
    wrong = {line["id"] for line in marks if line["mark"] == "wrong"}
    assert 3 <= len(wrong) <= len(marks) / 2
    (tmp_path / "marks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in marks))
    documented = "train head --config marks --data.table marks.jsonl --model.output_dir corrected"
    quick = "--model.cache.folder cache --trainer.accelerator cpu --trainer.logger false"
    assert main([*documented.split(), *quick.split()]) == 0
    assert main(["scan", "images", "--out", "after", "--model", "corrected", "--device", "cpu"]) == 0
    again = {row["id"]: marked(row, truth)["mark"] for row in rows_of(tmp_path / "after")}
    still = {name for name in wrong if again[name] == "wrong"}
    assert len(still) < len(wrong) / 2
    assert sum(mark == "wrong" for mark in again.values()) < len(wrong)
    old = checkpoint.fetch("safevlm-mini")
    for path, other in zip(
        checkpoint.lora_files(old), checkpoint.lora_files(tmp_path / "corrected"), strict=True
    ):
        assert path.read_bytes() == other.read_bytes()
    kept, default = checkpoint.load_config(tmp_path / "corrected"), checkpoint.load_config(old)
    assert kept.threshold == default.threshold
    assert kept.backbone == default.backbone
