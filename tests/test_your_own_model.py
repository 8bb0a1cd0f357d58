"""The files, commands and Python of docs/your_own_model.md, run in the page's order on a tiny LLaVA."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from safevlm import RiskScorer, SafeVLM
from safevlm.backbone import load_backbone
from safevlm.cli import main
from tests.training.builders import save_backbone, shade

pytestmark = [pytest.mark.training, pytest.mark.slow]
PAGE = (Path(__file__).parent.parent / "docs" / "your_own_model.md").read_text("utf-8")
COLOURS = {"clean": 0, "weapons": 3, "counterfeits": 2}
COUNT = 16  # pictures of a folder


def blocks() -> Iterator[tuple[str, str, str]]:
    """Language and code of the page's blocks, and the YAML file that was named last before each."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        named = re.findall(r"`(\w+\.yaml)`", PAGE[: found.start()])
        yield found[1], found[2], named[-1] if named else ""


def make_pictures(layout: str) -> None:
    """Fill the folders that the page lists; the colour of a picture tells its category."""
    for number, folder in enumerate(re.findall(r"^(\S+)/\*\.png", layout, re.MULTILINE)):
        Path(folder).mkdir(parents=True)
        for seed in range(COUNT):
            level = COLOURS.get(Path(folder).name, list(COLOURS.values())[seed % 3])
            name = "first" if seed == 0 else f"{seed:03d}"
            shade(level, 1000 * number + seed).save(Path(folder, f"{name}.png"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Iterator[Path]:
    """The folder in which all of the page was run."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))  # of the cache of features
        save_backbone(folder / "llava")
        for language, code, file in blocks():
            if language == "yaml":
                Path(file).write_text(code)
            elif language == "python":
                exec(compile(code, "docs/your_own_model.md", "exec"), {})
            elif language == "sh":
                run(code)
            else:
                make_pictures(code)
        yield folder


def run(code: str) -> None:
    for line in code.splitlines():
        program, *arguments = shlex.split(line)
        if program == "safevlm":
            assert main(arguments) == 0, line
        else:
            assert line.startswith("pip install "), line


def test_the_page_leads_from_a_folder_of_pictures_to_a_scan(shop):
    rows = pq.read_table(shop / "scanned" / "rows").to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(path.name for path in (shop / "photos").iterdir())
    assert {row["status"] for row in rows} == {"ok"}
    assert "UNTRAINED" not in (shop / "scanned" / "report.html").read_text()
    kept = (shop / "kept.txt").read_text().split()
    assert len(kept) == sum(row["verdict"] == "safe" for row in rows)


def test_its_head_tells_the_categories_apart(shop):
    for name in ("my-head", "my-guard"):
        scorer = RiskScorer.from_pretrained(shop / name)
        safe, weapon, copy = scorer.assess([shade(level, 9_000) for level in COLOURS.values()])
        assert safe.score < min(weapon.score, copy.score)
        assert (weapon.category, copy.category) == ("weapons", "counterfeits")


def test_its_answers_of_harmless_pictures_are_the_plain_models(shop):
    table = [json.loads(line) for line in (shop / "answers.jsonl").read_text().splitlines()]
    assert len(table) == 3 * COUNT
    risky = {row["risk_category"] for row in table if row["risk_level"] == "unsafe"}
    assert risky == {"weapons", "counterfeits"}
    row = next(row for row in table if row["risk_level"] == "safe")
    plain = SafeVLM.from_pretrained(shop / "my-head")
    with plain.disabled():
        (reply,) = plain.generate(shop / row["image"], row["prompt"], max_new_tokens=64)
    assert reply.text == row["response"]


def test_its_guard_has_lora_and_leaves_the_model_on_disk_as_it_was(shop):
    guard = SafeVLM.from_pretrained(shop / "my-guard")
    assert guard.has_lora
    before = load_backbone(str(shop / "llava")).model.state_dict()
    after = load_backbone(guard.config.backbone).model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
