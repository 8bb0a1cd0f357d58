"""`safevlm steer fit` and `steer show` on a tiny model in a folder, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from safevlm import SafeVLM
from safevlm.cli import main
from safevlm.steering import Direction
from tests.steering.test_extract import pairs_of
from tests.tiny import tiny_backbone, tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    backbone = tiny_backbone()
    backbone.model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def pairs(tmp_path) -> Path:
    given = pairs_of(8)
    rows = [
        {"text": text, "harmful": harmful, "pair_id": str(number), "source": "how-to"}
        for harmful, texts in ((True, given.harmful), (False, given.harmless))
        for number, text in enumerate(texts)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def test_fit_writes_the_direction_and_its_plot_and_show_tells_the_same(capsys, model, pairs, tmp_path):
    out = tmp_path / "direction"
    code, told = run(
        capsys, "steer", "fit", "--model", model, "--pairs", pairs, "--out", out, "--rank", 2, "--json", "--source", "how-to",
    )  # fmt: skip
    assert code == 0, told.err
    fitted = json.loads(told.out)
    assert {path.name for path in out.iterdir()} == {
        "direction.json",
        "direction.safetensors",
        "separation.png",
    }
    assert Image.open(out / "separation.png").format == "PNG"
    assert (fitted["pairs"], fitted["held_out"], fitted["rank"]) == (6, 2, 2)
    assert set(fitted["with_image"]) == {"0", "1"}
    direction = Direction.load(out)
    direction.check_fits(tiny_backbone())
    assert direction.pairs_sha256 == pairs_of(8).sha256

    code, told = run(capsys, "steer", "show", out, "--json")
    assert code == 0
    assert json.loads(told.out).items() <= fitted.items()
    code, told = run(capsys, "steer", "show", out)
    assert code == 0
    assert "harmful query" in told.out
    assert f"{direction.separation[1]:.3f}" in told.out


def test_fit_shows_both_separations(capsys, model, pairs, tmp_path):
    code, told = run(
        capsys, "steer", "fit", "--model", model, "--pairs", pairs, "--out", tmp_path / "out", "--axis", "jailbroken_behaviour",
    )  # fmt: skip
    assert code == 0, told.err
    assert "with image" in told.out
    assert "fitted on 6 pairs, AUROC on 2 others" in " ".join(told.out.split())
    assert Direction.load(tmp_path / "out").axis == "jailbroken_behaviour"


def test_the_name_of_safety_modules_stands_for_their_backbone(capsys, model, pairs, tmp_path):
    guard = SafeVLM.attach(tiny_backbone(), tiny_config())
    guard.config = guard.config.with_changes(backbone=str(model))
    guard.save_pretrained(tmp_path / "adapter")
    code, told = run(
        capsys, "steer", "fit", "--model", tmp_path / "adapter", "--pairs", pairs, "--out", tmp_path / "out", "--rank", 1,
    )  # fmt: skip
    assert code == 0, told.err
    Direction.load(tmp_path / "out").check_fits(guard.backbone)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--rank", "99"), "rank 99 with 8 pairs"),
        (("--source", "other"), "there are no pairs"),
        (("--split", "train"), "column split: is missing"),
        (("--batch_size", "0"), "at least one"),
    ],
)
def test_what_cannot_be_fitted_is_one_error_and_leaves_nothing(capsys, model, pairs, tmp_path, flags, told):
    out = tmp_path / "out"
    code, shown = run(capsys, "steer", "fit", "--model", model, "--pairs", pairs, "--out", out, *flags)
    assert code == 1
    assert "error: " in shown.err
    assert told in shown.err
    assert not out.exists()


def test_show_of_a_folder_without_a_direction(capsys, tmp_path):
    code, told = run(capsys, "steer", "show", tmp_path)
    assert code == 1
    assert "safevlm steer fit" in told.err
