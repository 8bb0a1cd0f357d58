"""The families that the code knows, the command line lists and the docs promise are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from safevlm import RiskScorer
from safevlm.backbone import FAMILIES, load_backbone
from safevlm.cli import main
from safevlm.errors import BackboneError
from tests.tiny import tiny_config

HERE = Path(__file__).parent
DOCS = (HERE.parents[1] / "docs" / "families.md").read_text("utf-8")
TABLES = [
    [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    for table in re.findall(r"(?:^\|.*\n)+", DOCS, re.MULTILINE)
]


def test_the_docs_have_every_family_and_no_other():
    towers, checks, _ = TABLES
    for table in (towers, checks):
        named = [name for row in table[2:] for name in re.findall(r"`(\w+)`", row[0])]
        assert sorted(named) == sorted(FAMILIES)


def test_every_check_in_the_docs_names_tests_that_run_for_every_family():
    _, checks, tests = TABLES
    assert checks[0][1:] == [row[0] for row in tests[2:]]
    assert all(cell.startswith("✓") for row in checks[2:] for cell in row[1:])
    source = "".join(path.read_text("utf-8") for path in HERE.glob("test_famil*.py"))
    for row in tests[2:]:
        names = re.findall(r"`(\w+)`", row[2])
        assert names
        for name in names:
            assert re.search(rf"def {name}\((guard|stages|backbone)\b", source), name


def test_info_lists_the_families(capsys):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["families"] == sorted(FAMILIES)


@pytest.mark.parametrize("kind", ["bert", "one-that-transformers-does-not-know"])
@pytest.mark.parametrize("load", [load_backbone, lambda name: RiskScorer.attach(name, tiny_config())])
def test_an_unknown_family_lists_the_known_ones_and_says_how_to_add_one(load, kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(BackboneError) as error:
        load(tmp_path)
    assert repr(kind) in str(error.value)
    assert all(name in str(error.value) for name in FAMILIES)
    assert "safevlm/backbone/families" in str(error.value)
