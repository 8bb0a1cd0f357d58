"""LoRA files: only matrices on the LLM's linear layers are loaded, and the backbone stays as it is."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from safevlm import SafeVLM
from safevlm.checkpoint import LORA, LORA_CONFIG, LORA_WEIGHTS
from safevlm.errors import CheckpointError
from tests.tiny import tiny_backbone, tiny_guard

OWN = r".*language_model.*\.(q_proj|v_proj)"


def written(folder, **settings):
    """A checkpoint whose LoRA PEFT itself wrote, every tensor of it other than a fresh one's."""
    guard = tiny_guard()
    config = LoraConfig(**{"r": 2, "target_modules": OWN, **settings})
    inject_adapter_in_model(config, guard.language_model)
    guard.language_model.peft_config = {"default": config}
    with torch.no_grad():
        for name, tensor in get_peft_model_state_dict(guard.language_model).items():
            tensor.add_(0.05 if "lora_" in name else 7.0)
    guard.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return written(tmp_path_factory.mktemp("lora") / "saved")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def edit(folder, **changes):
    path = folder / LORA / LORA_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load(folder):
    return SafeVLM.from_pretrained(folder, backbone=tiny_backbone())


def logits(guard):
    tokens = torch.arange(4, 12)[None]
    return guard.language_model(input_ids=tokens).logits


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["gate_proj", "down_proj"]},
        {"use_rslora": True, "lora_alpha": 4},
        {"target_modules": r".*language_model\.layers\.\d+\.mlp\.(up|down)_proj"},
    ],
)
def test_plain_lora_is_loaded_and_the_disabled_model_is_the_backbone(tmp_path, settings):
    guard = load(written(tmp_path / "lora", **settings))
    plain = tiny_backbone()
    before = dict(plain.model.state_dict())
    own = {
        name.replace(".base_layer", ""): value for name, value in guard.language_model.state_dict().items()
    }
    assert all(torch.equal(own[name], value) for name, value in before.items())
    with guard.disabled():
        disabled = logits(guard)
    assert torch.equal(disabled, plain.model(input_ids=torch.arange(4, 12)[None]).logits)
    assert not torch.equal(logits(guard), disabled)
    stored = load_file(tmp_path / "lora" / LORA / LORA_WEIGHTS)
    loaded = get_peft_model_state_dict(guard.language_model)
    assert set(stored) == set(loaded)
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": "all"},
        {"bias": "lora_only"},
        {"use_dora": True},
        {"lora_bias": True},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": r".*multi_modal_projector\.linear_1"},
        {"target_modules": r".*vision_tower.*\.q_proj"},
        {"target_modules": ["q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1]},
        {"rank_pattern": {"q_proj": 4}},
    ],
    ids=str,
)
def test_what_would_touch_more_than_the_llms_linear_layers_is_refused(tmp_path, settings):
    with pytest.raises(CheckpointError, match=LORA_CONFIG):
        load(written(tmp_path / "lora", **settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "EVIL"}, "peft_type is 'EVIL'"),
        ({"peft_type": 5}, "peft_type is 5"),
        ({"kasa_config": {"beta": 1.0}}, "kasa_config"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config"),
        ({"of_a_later_peft": 1}, "of_a_later_peft"),
        ({"qalora_group_size": True}, "qalora_group_size"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"r": "16"}, "r is '16'"),
        ({"r": 0}, "r is 0"),
        ({"r": 10**7}, "expected"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": 5}, "target_modules is 5"),
        ({"target_modules": [5]}, "target_modules is"),
        ({"target_modules": "((("}, "no regular expression"),
        ({"target_modules": ["nothing"]}, "no module of this backbone"),
        ({"target_modules": "all-linear"}, "no module of this backbone"),
        ({"target_modules": r".*language_model.*\.(q_proj|v_proj|o_proj)"}, "is missing"),
        ({"target_modules": r".*language_model.*\.q_proj"}, "is foreign"),
    ],
)
def test_a_config_that_is_malformed_or_does_not_fit_its_tensors(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "text", ["[]", "{", "", "{}", "[" * 100_000, '{"r": 1, "r": 2}', '{"lora_alpha": NaN}']
)
def test_a_config_that_is_no_lora_config(folder, text):
    (folder / LORA / LORA_CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match=LORA_CONFIG):
        load(folder)


def test_a_pattern_that_takes_exponential_time_is_given_up(folder, monkeypatch):
    monkeypatch.setattr("safevlm.lora.PATTERN_SECONDS", 0.2)
    edit(folder, target_modules="(.|..)*[^a-z._0-9]")
    with pytest.raises(CheckpointError, match="takes too long"):
        load(folder)


@pytest.mark.parametrize("kind", ["extra", "whole numbers", "cut", "nan", "inf"])
def test_other_tensors_than_lora_matrices(folder, kind):
    path = folder / LORA / LORA_WEIGHTS
    tensors = load_file(path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "extra":
        save_file(tensors | {"model.language_model.embed_tokens.weight": torch.zeros(2, 2)}, path)
    elif kind in ("nan", "inf"):
        next(iter(tensors.values())).view(-1)[-1] = float(kind)
        save_file(tensors, path)
    else:
        save_file({name: value.to(torch.int64) for name, value in tensors.items()}, path)
    with pytest.raises(CheckpointError, match=LORA_WEIGHTS):
        load(folder)


def test_a_backbone_that_was_made_in_inference_mode_takes_lora_too(folder):
    with torch.inference_mode():
        backbone = tiny_backbone()
    guard = SafeVLM.from_pretrained(folder, backbone=backbone)
    torch.testing.assert_close(logits(guard), logits(load(folder)), rtol=0, atol=0)
