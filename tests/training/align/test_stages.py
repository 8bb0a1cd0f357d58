"""SFT, DPO and PPO end to end on tiny models: what is written, how it loads, and how a run goes on."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from safevlm.training import train
from safevlm.training.align.gold import TEMPLATES
from safevlm.training.align.rewards import JudgeReward
from safevlm.training.cli import CONFIGS, command
from transformers import LlavaForConditionalGeneration

from safevlm.aligned import load_aligned, load_alignment, load_merged
from safevlm.backbone import PlainModel, load_backbone
from safevlm.checkpoint import lora_disabled, merge_lora
from safevlm.errors import CheckpointError, TrainingError
from safevlm.evals.concepts import Answer, load_plain_target
from tests.tiny import picture
from tests.training.align.builders import FirstWordJudge
from tests.training.builders import save_backbone, write_jsonl

SEPARATE = {"model.shaping.no_end_penalty": 0}
"""Rewards that tell answers of one length apart by chance alone still move the value head and the entropy."""


def column(out, name):
    with next(out.with_name(f"{out.name}.run").glob("csv/*/metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def logits(model, processor):
    inputs = processor(text=["USER: <image>\nHi ASSISTANT: "], images=[picture()], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits


def test_sft_learns_the_gold_answers_and_its_folder_loads(quick, backbone, tmp_path):
    options = {"trainer.max_epochs": 3, "model.schedule.lr": 1e-2, "model.lora.r": 4}
    made = command("sft", quick("sft", **options))
    made.fit()
    out = tmp_path / "out"
    losses = column(out, "train/loss")
    assert sum(losses[-4:]) < sum(losses[:4]) - 1
    assert sorted(path.name for path in out.rglob("*")) == [
        "adapter_config.json", "adapter_model.safetensors", "alignment.json", "lora",
    ]  # fmt: skip

    trained, loaded, plain = made.model.policy.model, load_aligned(out), load_backbone(backbone)
    processor = loaded.processor
    now = logits(loaded.model, processor)
    assert torch.equal(now, logits(trained, processor))
    assert not torch.allclose(now, logits(plain.model, processor), atol=0.1)
    with lora_disabled(loaded.model):
        assert torch.equal(logits(loaded.model, processor), logits(plain.model, processor))
    alone = LlavaForConditionalGeneration.from_pretrained(backbone)
    alone.load_adapter(str(out / "lora"))
    torch.testing.assert_close(logits(alone, processor), now)

    target, version = load_plain_target(out)
    assert str(out) in version
    assert target.answer([picture()], ["Hi"], max_new_tokens=4) == [
        Answer(text)
        for text in PlainModel(trained, processor, name="trained").answer(
            [picture()], ["Hi"], max_new_tokens=4
        )
    ]

    told = load_alignment(out)
    assert told.method == "sft"
    assert len(told.split["held_out_concepts"]) == 2
    assert len(told.split["held_out_questions"]) == 1
    with pytest.raises(CheckpointError, match="was trained on another language model than"):
        load_aligned(out, backbone=save_backbone(tmp_path / "other", seed=1))
    with pytest.raises(CheckpointError, match=r"already holds an alignment; .*--model\.overwrite true"):
        train("sft", quick("sft"))
    (out / "alignment.json").write_text(json.dumps({"backbone": 3}))
    with pytest.raises(CheckpointError, match="needs the keys backbone, method"):
        load_aligned(out)
    with pytest.raises(CheckpointError, match=r"has no alignment\.json: it is no alignment"):
        load_aligned(tmp_path)


def test_an_alignment_goes_on_from_another_whose_layers_are_merged(quick, backbone, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    strong = {"model.schedule.lr": 1e-2, "model.lora.r": 4}
    train("sft", quick("sft", **strong, **{"model.output_dir": first}))
    train("ppo", quick("ppo", **strong, **{"model.backbone": first, "model.output_dir": second}))
    assert (load_alignment(first).method, load_alignment(second).method) == ("sft", "sft+ppo")

    beside, merged, loaded = load_aligned(first), load_merged(first), load_aligned(second)
    expected = logits(beside.model, beside.processor)
    assert not torch.allclose(expected, logits(load_backbone(backbone).model, beside.processor), atol=0.1)
    torch.testing.assert_close(logits(merged.model, merged.processor), expected)
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    with lora_disabled(loaded.model):  # what PPO's answers were compared with
        torch.testing.assert_close(logits(loaded.model, loaded.processor), expected)
    target, version = load_plain_target(second)
    assert all(
        str(part) in version for part in (second, first, backbone)
    )  # a change of any asks all questions anew
    shown = ([picture()], ["Hi"])
    assert target.answer(*shown, max_new_tokens=4) == [
        Answer(text)
        for text in PlainModel(loaded.model, loaded.processor, name="").answer(*shown, max_new_tokens=4)
    ]
    with pytest.raises(CheckpointError, match=r"a backbone aligned by sft, and .* is aligned by nothing"):
        load_aligned(second, backbone=backbone)
    with pytest.raises(
        CheckpointError, match=r"a backbone aligned by nothing, and .* is aligned by sft\+ppo"
    ):
        load_aligned(first, backbone=second)
    for layer in loaded.model.modules():
        if isinstance(layer, LoraLayer):  # as a quantized one holds its weight
            weight = layer.get_base_layer().weight
            layer.get_base_layer().weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(
        CheckpointError, match="second: its LoRA layers cannot be merged into quantized weights"
    ):
        merge_lora(loaded.model, second)


def test_dpo_begins_at_log_2_and_learns_preferences_of_a_file(quick, tmp_path):
    rows = [
        {
            "prompt": f"Is {number} fine?",
            "chosen": TEMPLATES["safe"][0],
            "rejected": TEMPLATES["unsafe"][0],
            "images": [],
        }
        for number in range(8)
    ]
    table = write_jsonl(tmp_path / "p.jsonl", rows)
    options = {
        "data.concepts": None,
        "data.preferences": table,
        "trainer.max_epochs": 3,
        "model.schedule.lr": 1e-2,
    }
    train("dpo", quick("dpo", **options))
    out = tmp_path / "out"
    losses = column(out, "train/loss")
    assert abs(losses[0] - math.log(2)) < 1e-6
    assert losses[-1] < losses[0] / 2
    assert column(out, "train/accuracy")[-1] == 1
    assert load_alignment(out).split == {}
    with pytest.raises(TrainingError, match="a preference file has no labels"):
        train("ppo", quick("ppo", **{**options, "model.output_dir": tmp_path / "ppo"}))


class Stopped(Exception):
    """What ends a run."""


class Stop(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (0, 2):
            raise Stopped


@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_an_interrupted_and_resumed_run_ends_where_a_whole_one_does(quick, tmp_path, method, recwarn):
    options = {"save_every": 2 if method == "ppo" else 1}
    options |= {"model.ppo.inner_epochs": 2, **SEPARATE} if method == "ppo" else {}
    folders = [tmp_path / "whole", tmp_path / "halved"]
    train(method, quick(method, **options, **{"model.output_dir": folders[0]}))
    argv = quick(method, **options, **{"model.output_dir": folders[1]})
    made = command(method, argv)
    made.trainer.callbacks.append(Stop())
    with pytest.raises(Stopped):
        made.fit()
    assert not folders[1].exists()
    train(method, [*argv, "--ckpt_path=last"])
    whole, halved = (load_file(folder / "lora" / "adapter_model.safetensors") for folder in folders)
    assert whole.keys() == halved.keys()
    assert all(torch.equal(value, halved[name]) for name, value in whole.items())
    if method == "ppo":
        whole, halved = (folder.with_name(f"{folder.name}.run") / "answers.jsonl" for folder in folders)
        assert whole.read_text() == halved.read_text()
    assert not [told for told in recwarn if "ModelCheckpoint" in str(told.message)]
    other = [*argv, "--model.overwrite=true", "--model.lora.r=4", "--data.seed=1", "--ckpt_path=last"]
    with pytest.raises(
        CheckpointError, match=r"data\.seed was 0, is now 1; .*model\.lora\.r was 2, is now 4"
    ):
        train(method, other)


@pytest.mark.parametrize("name", ["mini_sft", "mini_dpo", "mini_ppo", "ppo_7b"])
def test_every_shipped_config_parses_against_the_signatures(name):
    method = next(part for part in name.split("_") if part in ("sft", "dpo", "ppo"))
    made = command(method, ["--config", name, "--data.concepts=set", "--trainer.accelerator=cpu"])
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert made.model.schedule.lr == values["model"]["schedule"]["lr"]
    assert made.model.lora.r == values["model"]["lora"]["r"]
    assert made.datamodule.batch_size == values["data"]["batch_size"]
    if name == "ppo_7b":  # the paper's numbers
        assert (made.model.lora.r, made.model.lora.alpha, made.model.schedule.lr) == (128, 256, 3e-5)
        assert (made.trainer.max_epochs, made.datamodule.batch_size, made.model.ppo.max_new_tokens) == (
            4,
            32,
            512,
        )
        assert made.model.quantization["load_in_4bit"] is True
        assert (2 * 1222 * 4) // 32 == 305


def test_what_would_not_do_what_was_asked_is_refused(quick):
    with pytest.raises(ValueError, match="PPO compares a policy with the one that sampled the answers"):
        command("ppo", quick("ppo", **{"model.lora.dropout": 0.1}))
    with pytest.raises(ValueError, match="beta is 0"):
        command("dpo", quick("dpo", **{"model.beta": 0}))
    with pytest.raises(TrainingError, match="not supported for manual optimization"):
        train("ppo", quick("ppo", **{"trainer.gradient_clip_val": 1.0}))
    with pytest.raises(TrainingError, match="alignment trains in one process, and 2 are asked for"):
        train("sft", quick("sft", **{"trainer.devices": 2, "trainer.strategy": "ddp_fork"}))


class OwnReward(JudgeReward):
    """What the guide says to write for a judge of one's own."""

    def __init__(self) -> None:
        super().__init__(FirstWordJudge())


def test_a_judge_of_ones_own_is_named_on_the_command_line(quick):
    made = command("ppo", quick("ppo", **{"model.reward": "tests.training.align.test_stages.OwnReward"}))
    assert made.model.reward.judge.name == "first word"
    assert made.model.own_options()["model.reward"] == "OwnReward of first word"
