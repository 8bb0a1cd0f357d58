"""The files that docs/policy.md shows are read as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from safevlm import Policy, Taxonomy
from safevlm.labelled import read_table
from safevlm.types import Action, Risk, Verdict
from tests.tiny import picture

GUIDE = (Path(__file__).parent.parent / "docs" / "policy.md").read_text("utf-8")
POLICY, TAXONOMY = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
(ROWS,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_the_policy_is_one_of_the_embedded_model(tmp_path):
    taxonomy = Taxonomy.preset("safevlm-mini")
    policy = Policy.from_yaml(written(tmp_path, "policy.yaml", POLICY), taxonomy)
    assert (policy.threshold, policy.thresholds, policy.off) == (0.4, {"weapons": 0.2}, {"substances"})

    def decided(level: str, category: str, score: float) -> tuple[Verdict, Action]:
        found = policy.assess(Risk(score, {**dict.fromkeys(taxonomy.levels, 0.0), "safe": 1 - score, level: score},
                                   {**dict.fromkeys(taxonomy.category_names, 0.0), category: 1.0}))  # fmt: skip
        return found.verdict, policy.decide(found).action

    assert decided("refuse", "fire", 0.3) == (Verdict.SAFE, Action.ALLOW)
    assert decided("refuse", "weapons", 0.3) == (Verdict.UNSAFE, Action.REFUSE)
    assert decided("caution", "fire", 0.5) == (Verdict.UNSAFE, Action.ALLOW)
    assert decided("refuse", "substances", 0.9) == (Verdict.SAFE, Action.ALLOW)
    assert policy.hint("restrict", "fire") == "[Note: this shows fire. Put safety first.]"


def test_every_field_is_in_the_table_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", GUIDE, re.MULTILINE))
    assert set(rows) == set(Policy.__dataclass_fields__)
    policy = Policy(Taxonomy.preset("safevlm"))
    assert rows["threshold"] == str(policy.threshold)
    assert rows["undecided"] == policy.undecided.value
    assert rows["rule"] == f"`{policy.rule}`"


@pytest.mark.parametrize("name", re.findall(r"`(\w[\w-]*)`", GUIDE.split("Presets:")[1].split("Your own")[0]))
def test_presets_exist(name):
    assert Taxonomy.preset(name).name == name


def test_llava_json_is_read_with_a_taxonomy_of_two_levels(tmp_path):
    taxonomy = Taxonomy.from_yaml(written(tmp_path, "shop.yaml", TAXONOMY))
    assert (taxonomy.levels, taxonomy.risky_categories) == (("safe", "unsafe"), ("weapons", "counterfeits"))
    assert Policy(taxonomy).decide(Policy(taxonomy).assess(Risk(1.0, {"safe": 0.0, "unsafe": 1.0},
        {"clean": 0.0, "weapons": 1.0, "counterfeits": 0.0}))).action is Action.REFUSE  # fmt: skip
    picture(0).save(tmp_path / "1.png")
    (row,) = read_table(written(tmp_path, "data.json", json.dumps(json.loads(ROWS))), taxonomy)
    assert (row.level, row.category, row.prompt, row.response) == (1, 1, "What is this?", "A knife.")
