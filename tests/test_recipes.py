"""The alignment recipe: its trainings are commands that parse, and its table counts what it says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from safevlm.training.cli import command

from safevlm.errors import DataError
from safevlm.evals.concepts import Answer, make_probes, measure
from safevlm.judges import RuleJudge
from safevlm.labelled import ConceptQuestions
from tests.evals.concept_builders import Knows, things

RECIPE = Path(__file__).parent.parent / "examples" / "recipes" / "alignment.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("alignment_recipe", RECIPE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


SPLIT = {
    "trained_concepts": ["weapons/knife", "fire/flame", "animals/cat", "fruit/apple", "fruit/pear"],
    "held_out_concepts": ["weapons/bomb", "fire/bonfire", "animals/lion"],
    "trained_questions": list(ConceptQuestions().image[1:]),
    "held_out_questions": [ConceptQuestions().image[0]],
}


@pytest.mark.parametrize("method", ["sft", "dpo", "ppo", "grpo", "dpo+ppo", "dpo+grpo"])
def test_every_training_is_a_command_that_parses(recipe, method, tmp_path, monkeypatch):
    made = []

    def written(stage, argv):
        made.append(own := command(stage, argv))
        own.model.output_dir.mkdir()
        (own.model.output_dir / "alignment.json").write_text("{}")

    monkeypatch.setattr(recipe, "train", written)
    recipe.align(method, 3, tmp_path, tmp_path / "train.parquet", recipe.Options())
    *before, own = made
    assert (own.datamodule.seed, own.datamodule.hold_out) == (3, "both")
    assert own.model.output_dir == tmp_path / f"{method}-3"
    assert [one.model.output_dir for one in before] == [tmp_path / "dpo-3"] * method.startswith("dpo+")
    assert own.model.backbone_name == str(before[0].model.output_dir if before else recipe.Options.base)
    if method.endswith("grpo"):
        assert own.datamodule.batch_size * own.model.ppo.answers_per_prompt == 32
    recipe.align(method, 3, tmp_path, tmp_path / "train.parquet", recipe.Options())
    assert made == [*before, own]


def test_a_folder_of_other_options_is_refused(recipe, tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"")
    recipe.prepare(tmp_path, recipe.Options())
    recipe.prepare(tmp_path, recipe.Options())
    with pytest.raises(DataError, match="results of other options"):
        recipe.prepare(tmp_path, recipe.Options(n_train=9))
    with pytest.raises(ValueError, match="unknown \\['rlhf'\\]"):
        recipe.main(tmp_path, methods="plain,rlhf")


def test_parts_are_by_thing_and_by_question_and_the_table_is_a_mean_over_seeds(recipe):
    probes = make_probes(things(), ConceptQuestions(), kinds=recipe.KINDS)
    wrong = Knows(probes, lambda probe: "Yes." if probe.kind == "image" and probe.concept == "bomb" else None)
    answers = wrong.answer(
        [probe.source for probe in probes], [probe.prompt for probe in probes], max_new_tokens=1
    )
    rows = {
        (concepts, about): recipe.part(probes, answers, SPLIT, concepts=concepts, questions=about)
        for concepts in ("trained", "held_out")
        for about in ("trained", "held_out")
    }
    trained = [probe for probe, _ in rows["trained", "trained"]]
    assert len(trained) == 5 * 3 + 5 * 3 * 4 + 5 * 4  # perception, image, text
    assert {probe.concept for probe in trained} == {"knife", "flame", "cat", "apple", "pear"}
    held = [probe for probe, _ in rows["held_out", "held_out"]]
    assert len(held) == 3 * 3 + 3 * 3 + 3
    assert {probe.prompt for probe in held if probe.kind == "image"} == set(SPLIT["held_out_questions"])
    assert all("posted on social media" in probe.prompt for probe in held if probe.kind == "text")
    nothing = {**SPLIT, "held_out_questions": []}
    assert recipe.part(probes, answers, nothing, concepts="trained", questions="held_out") == []

    found = []
    for seed, share in ((0, "held_out"), (1, "trained")):
        own, said = zip(*rows["held_out", "held_out"], strict=True)
        said = [
            Answer("No.") if share == "trained" and probe.kind == "image" else one
            for probe, one in zip(own, said, strict=True)
        ]
        result = measure(own, said, RuleJudge(), target="sft", concepts="scenes")
        found.append(
            {
                "method": "sft", "seed": seed, "images": "scenes", "concepts": "held_out", "questions": "held_out",
                "judge": "rules", "rows": json.loads(json.dumps(recipe.overall(result))),
            }
        )  # fmt: skip
    text = recipe.markdown(found, recipe.Options(), [0, 1])
    assert "**scenes, held out things, held out questions**" in text
    assert "trained things" not in text
    line = next(line for line in text.splitlines() if line.startswith("| sft |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3].startswith("75.0 [")  # of unsafe images bomb was wrong with seed 0: 3 of 6, and 6 of 6
    assert cells[4].startswith("50.0 [")  # of harmless images all right, and none
    assert cells[2].startswith("100.0 [")
    assert cells[-2] == "–"  # no ordinary questions
    assert cells[-1] == "9, 9"
