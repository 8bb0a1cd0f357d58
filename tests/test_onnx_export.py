"""A scorer exported to ONNX: the same scores in onnxruntime, for any number of images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnxruntime
import pytest

from safevlm import RiskScorer, SafeVLM
from safevlm.cli import main
from safevlm.errors import BackboneError
from safevlm.onnx_export import export_onnx
from tests.families import family_backbone
from tests.tiny import picture, tiny_config

GUIDE = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text("utf-8")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "scorer"
    assert main(["export-model", "--out", str(folder)]) == 0
    return folder


def test_scores_are_those_of_the_scorer_for_any_number_of_images(exported):
    scorer = RiskScorer.from_pretrained("safevlm-mini")
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    about = json.loads((exported / "scorer.json").read_text("utf-8"))
    for count in (1, 3):
        images = [picture(number).resize((224, 224)) for number in range(count)]
        inputs = scorer.preprocess(images)
        levels, categories = session.run(None, {"pixel_values": inputs.tensors["pixel_values"].numpy()})
        wanted = scorer.assess_inputs(inputs)
        for row, one in enumerate(wanted):
            assert dict(
                zip(about["outputs"]["level_probabilities"], levels[row], strict=True)
            ) == pytest.approx(dict(one.level_probabilities), abs=1e-4)
            assert dict(
                zip(about["outputs"]["category_probabilities"], categories[row], strict=True)
            ) == pytest.approx(dict(one.category_probabilities), abs=1e-4)
    assert about["threshold"] == scorer.config.threshold
    assert about["untrained"] is False
    assert about["safe_level"] == scorer.config.taxonomy.levels[0]


def test_the_guides_code_gives_the_scorers_score(exported, monkeypatch, capsys):
    monkeypatch.chdir(exported.parent)
    picture(1).resize((250, 300)).save("picture.png")
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(code, {})
    score, verdict, _ = capsys.readouterr().out.split()
    (wanted,) = RiskScorer.from_pretrained("safevlm-mini").assess(["picture.png"])
    assert float(score) == pytest.approx(wanted.score, abs=0.02)
    assert verdict == wanted.verdict.value


def test_a_tower_of_tiles_is_refused_and_a_folder_is_not_overwritten(exported, tmp_path):
    guard = SafeVLM.attach(family_backbone("llava_next"), tiny_config())
    with pytest.raises(BackboneError, match="a size that depends on the image"):
        export_onnx(guard.scorer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileExistsError, match="holds files already"):
        export_onnx(RiskScorer.from_pretrained("safevlm-mini"), exported)


def test_a_channels_last_tower_is_left_as_it_was(exported):
    scorer = RiskScorer.from_pretrained("safevlm-mini")
    before = {name: p.stride() for name, p in scorer.tower.module.named_parameters()}
    images = [picture(0)]
    wanted = scorer.assess(images)[0].score
    export_onnx(scorer, exported.parent / "again")
    assert {name: p.stride() for name, p in scorer.tower.module.named_parameters()} == before
    assert scorer.assess(images)[0].score == wanted
