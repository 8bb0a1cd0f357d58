"""Adapter-only files: what is refused, by file, key and remedy."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from safevlm import SafeVLM
from safevlm.checkpoint import CONFIG, WEIGHTS, fetch, load_config, load_tensors
from safevlm.config import SCHEMA_VERSION, Calibration, OperatingPoint, Reading, SafetyConfig
from safevlm.errors import CheckpointError
from safevlm.model_card import model_card
from tests.tiny import tiny_backbone, tiny_config, tiny_guard

POINT = {"threshold": 0.2, "false_positive_rate": 0.03, "data": "tune", "samples": 400}
READING = {"category": "politics", "threshold": 0.1, "data": "tune", "samples": 60}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "saved"
    tiny_guard().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def load(folder, **backbone):
    return SafeVLM.from_pretrained(folder, backbone=tiny_backbone(**backbone))


def edit(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_config_round_trip():
    config = tiny_config(
        vision_dim=3,
        text_dim=5,
        pool_grid=(2, 3),
        calibration=Calibration(1.5, "tune", 80, share=0.5, prior=0.05),
        operating_point=OperatingPoint(0.2, 0.03, "tune", 400),
        reading=Reading("politics", 0.1, "tune", 60),
        has_lora=True,
    )
    assert SafetyConfig.from_json(config.to_json()) == config


def test_a_config_of_schema_version_1_has_no_points_and_keeps_its_text():
    text = (Path(__file__).parent / "written_before/guard" / CONFIG).read_text()
    config = SafetyConfig.from_json(text)
    assert json.loads(text)["schema_version"] == 1
    assert (config.schema_version, config.operating_point, config.reading) == (SCHEMA_VERSION, None, None)
    assert config.threshold == 0.5
    assert config.to_json() == text


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": Calibration(1.5, "tune", 80, share=0.5)},
        {"operating_point": OperatingPoint(0.2, 0.03, "tune", 400)},
    ],
)
def test_what_version_1_cannot_hold_is_written_as_version_2(changes):
    config = tiny_config(vision_dim=3, text_dim=5, **changes)
    values = json.loads(config.to_json())
    assert values["schema_version"] == 2
    assert values.keys() >= {"operating_point", "reading"}
    assert SafetyConfig.from_json(config.to_json()) == config


def test_untrained_modules_are_marked_in_version_3_alone():
    config = tiny_config(vision_dim=3, text_dim=5, untrained=True)
    values = json.loads(config.to_json())
    assert (values["schema_version"], values["untrained"]) == (SCHEMA_VERSION, True)
    assert SafetyConfig.from_json(config.to_json()) == config
    trained = config.with_changes(untrained=False)
    assert "untrained" not in trained.to_json()
    assert SafetyConfig.from_json(trained.to_json()) == trained


def test_the_prior_shifts_the_log_odds_from_those_of_the_data():
    assert Calibration(1.0, "tune", 80, share=0.5, prior=0.1).log_odds_shift == pytest.approx(-math.log(9))
    assert Calibration(1.0, "tune", 80, share=0.3, prior=0.3).log_odds_shift == 0
    assert Calibration(1.0, "tune", 80).log_odds_shift == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "pip install -U safevlm"),
        ({"schema_version": None}, "schema_version"),
        ({"colour": "red"}, "foreign fields.*colour"),
        ({"num_tokens": 0}, "num_tokens is 0"),
        ({"num_tokens": "three"}, "num_tokens"),
        ({"num_tokens": 4}, r"tokens.head.*\(3, 32\).*\(4, 32\) expected"),
        ({"hidden_dim": 24}, "expected"),
        ({"depth": 2}, "is missing"),
        ({"taxonomy": {"name": "x"}}, "missing fields"),
        ({"calibration": {"temperature": -1, "data": "x", "samples": 3}}, "temperature"),
        ({"has_lora": True}, "adapter_config.json"),
        ({"has_lora": "yes"}, "has_lora is 'yes'"),
        ({"has_lora": 1}, "has_lora is 1"),
        ({"untrained": "no"}, "untrained is 'no'"),
        ({"schema_version": True}, "schema_version is True"),
        ({"schema_version": -5}, "schema_version is -5"),
        ({"depth": 10**7}, "depth is 10000000, more than"),
        ({"hidden_dim": 2**62}, "hidden_dim is .*more than"),
        ({"num_tokens": 10**30}, "num_tokens is .*more than"),
        ({"num_tokens": True}, "num_tokens is True"),
        ({"pool_grid": [10**6, 10**6]}, "pool_grid is 1000000"),
        ({"pool_grid": "ab"}, "pool_grid is 'ab'"),
        ({"pool_grid": 5}, "pool_grid is 5"),
        ({"pool_grid": [2.0, 2.0]}, "pool_grid is 2.0"),
        ({"vision_layer": True}, "vision_layer is True"),
        ({"vision_layer": 10**30}, "vision_layer is"),
        ({"backbone": 5}, "backbone is 5"),
        ({"backbone": ["a"]}, "backbone is .'a'."),
        ({"backbone": "a\0b"}, "backbone is"),
        ({"tower_fingerprint": None}, "tower_fingerprint is None"),
        ({"tower_fingerprint": "1234"}, "tower_fingerprint is '1234'"),
        ({"tower_fingerprint": [10**400]}, "tower_fingerprint is"),
        ({"taxonomy": None}, "taxonomy is a mapping"),
        ({"calibration": [1, 2, 3]}, "calibration is"),
        ({"calibration": {"temperature": 10**400, "data": "", "samples": 1}}, "temperature"),
        ({"calibration": {"temperature": True, "data": "", "samples": 1}}, "temperature True"),
        ({"calibration": {"temperature": 1.0, "data": 5, "samples": 1}}, "data is 5"),
        ({"calibration": {"temperature": 1.0, "data": "", "samples": 1, "prior": 0.5}}, "without the share"),
        ({"calibration": {"temperature": 1.0, "data": "", "samples": 1, "share": 1.0}}, "share is 1.0"),
        ({"operating_point": 0.5}, "operating_point is 0.5"),
        ({"operating_point": {"threshold": 0.5}}, "missing fields"),
        ({"operating_point": POINT | {"threshold": 0}}, "threshold is 0"),
        ({"operating_point": POINT | {"threshold": True}}, "threshold is True"),
        ({"operating_point": POINT | {"false_positive_rate": 1}}, "false_positive_rate is 1"),
        ({"operating_point": POINT | {"samples": 0}}, "samples is 0"),
        ({"reading": READING | {"category": "weather"}}, "'weather' is not in taxonomy"),
        ({"reading": READING | {"threshold": 1.5}}, "threshold is 1.5"),
        ({"reading": READING | {"colour": "red"}}, "foreign fields.*colour"),
    ],
)
def test_a_config_that_does_not_fit_names_file_and_key(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_config_key_is_named(folder):
    values = json.loads((folder / CONFIG).read_text())
    del values["num_heads"]
    (folder / CONFIG).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="num_heads"):
        load(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "\x00\xff", "[" * 100_000, '{"has_lora": true, "has_lora": false}', '{"depth": NaN}'],
)
def test_a_config_that_is_no_json_object(folder, text):
    (folder / CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=CONFIG):
        load(folder)


@pytest.mark.parametrize("kind", ["missing", "foreign", "size"])
def test_wrong_tensors_are_named(folder, kind):
    tensors = load_file(folder / WEIGHTS)
    if kind == "missing":
        del tensors["head.level.weight"]
    elif kind == "foreign":
        tensors["head.extra"] = torch.zeros(1)
    else:
        tensors["head.level.weight"] = torch.zeros(9, 9)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="head.extra" if kind == "foreign" else "head.level.weight"):
        load(folder)


def test_a_truncated_file(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(folder)


def test_sizes_are_compared_before_tensors_are_read(tmp_path):
    """A header that claims a huge tensor is refused without reading or allocating it."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(CheckpointError):
        load_tensors(tmp_path, {"x": torch.Size([1])})


def test_a_pickle_is_never_read(folder):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was read",))

    (folder / WEIGHTS).unlink()
    (folder / "safety.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="only safetensors"):
        load(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match="never read"):
        load(folder)


def test_another_backbone_is_refused(folder):
    with pytest.raises(CheckpointError, match="tower_fingerprint.*trained on"):
        load(folder, seed=7)
    edit(folder, vision_layer=-1)
    with pytest.raises(CheckpointError, match="vision_layer"):
        load(folder)


def test_a_checkpoint_of_another_edition_of_the_embedded_model_says_what_reads_it(folder):
    edit(folder, backbone="safevlm-mini-base")
    with pytest.raises(CheckpointError, match="with the version of safevlm that wrote it"):
        load(folder, seed=7)


def test_an_interrupted_save_leaves_the_old_file(folder, monkeypatch):
    before = (folder / WEIGHTS).read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("safevlm.files.os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny_guard(3).save_pretrained(folder)
    assert (folder / WEIGHTS).read_bytes() == before
    assert not list(folder.glob(".*"))


def test_an_empty_folder_and_a_hub_id_without_a_network(tmp_path):
    with pytest.raises(CheckpointError, match="no SafeVLM checkpoint"):
        load_config(tmp_path)
    with pytest.raises(CheckpointError, match="not embedded.*network"):
        fetch("nobody/there-is-no-such-model", local_files_only=True)


def test_the_card_names_the_backbone_and_the_taxonomy(saved):
    card = (saved / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: safevlm\n")
    assert "politics" in card
    assert "64" not in card.split("safety tokens")[1].splitlines()[0]


def test_the_card_tells_the_operating_point_with_its_number_of_items():
    point = OperatingPoint(0.2, 0.03, "t.parquet, tune split", 412)
    card = model_card(tiny_config(operating_point=point, reading=Reading("politics", 0.1, "tune", 60)))
    assert f"| operating point | {point.text} |" in card
    assert all(word in point.text for word in ("0.2", "3 %", "412", "t.parquet"))
    assert "P(politics) >= 0.1" in card


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.complex64])
def test_tensors_that_are_no_floats_are_refused(folder, dtype):
    save_file({key: value.to(dtype) for key, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="of type"):
        load(folder)


@pytest.mark.parametrize("kind", ["a key twice", "nested too deeply", "too large"])
def test_a_malformed_header(folder, kind):
    data = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    text = data[8:end].rstrip()
    first = next(key for key in json.loads(text) if key != "__metadata__")
    entry = json.dumps({first: json.loads(text)[first]})[1:].encode()
    header = {
        "a key twice": text[:-1] + b", " + entry,
        "nested too deeply": b"[" * 100_000,
        "too large": text + b" " * (17 << 20),
    }[kind]
    header += b" " * (-len(header) % 8)
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(folder)
