"""Documents name only files, tests, modules and anchors that exist, and every page can be found from the index."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS, *(ROOT / "training").rglob("*.md"), ROOT / "checkpoints" / "README.md"]
)
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names what is gone
NAMED = re.compile(
    r"(?<![\w./-])(?:(?:safevlm|training|tests|docs|examples|checkpoints|\.ci)/(?:[\w./-]*\w(?:\.\w+|/))?|\.ci/run|\.pre-commit-config\.yaml)"
)
LINKED = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]+)?\)")
TESTED = re.compile(r"`(?:(tests/[\w/]+\.py)::)?(test_\w+)`")
MODULE = re.compile(r"(?<![\w./:-])safevlm(?:\.[A-Za-z_]\w*)+")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@cache
def functions() -> dict[str, set[str]]:
    """File of tests -> names of the functions in it."""
    return {
        named(path): {
            node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
        }
        for path in (ROOT / "tests").rglob("test_*.py")
    }


@pytest.mark.parametrize("page", CURRENT, ids=named)
def test_every_file_that_a_page_names_is_there(page):
    files = {ROOT / name for name in NAMED.findall(page.read_text("utf-8"))}
    assert not sorted(str(path) for path in files if not path.exists())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page):
    for name, anchor in LINKED.findall(page.read_text("utf-8")):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), name + anchor


@pytest.mark.parametrize("page", CURRENT, ids=named)
def test_every_test_that_a_page_names_is_there(page):
    for file, test in TESTED.findall(page.read_text("utf-8")):
        there = [functions().get(file, set())] if file else functions().values()
        assert any(test in names for names in there), f"{file}::{test}"


@pytest.mark.parametrize("page", CURRENT, ids=named)
def test_every_module_that_a_page_names_can_be_imported(page):
    for name in sorted(set(MODULE.findall(page.read_text("utf-8")))):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_the_index_links_every_page():
    linked = {
        (ROOT / "docs" / name).resolve()
        for name, _ in LINKED.findall((ROOT / "docs" / "index.md").read_text("utf-8"))
    }
    assert not {named(page) for page in DOCS if page.name != "index.md" and page not in linked}
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "docs/index.md" in {name for name, _ in LINKED.findall(readme)}


def test_the_readme_has_a_page_for_every_job_and_names_every_command():
    from safevlm.commands import COMMANDS

    table = (ROOT / "README.md").read_text("utf-8").split("| job | commands | page |")[1].split("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert rows
    assert all(LINKED.search(row[-1]) for row in rows)
    named = {command for row in rows for command in re.findall(r"`([^`]+)`", row[1])}
    assert set(COMMANDS) <= named


def test_the_site_has_every_page_and_every_package_with_public_names():
    pages = set(re.findall(r"[\w./]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]))
    assert {named(page) for page in PAGES} <= pages
    packages = {
        named(file.parent).replace("/", ".").replace("training", "safevlm.training")
        for room in ("safevlm", "training")
        for file in (ROOT / room).rglob("__init__.py")
        if "\n__all__" in file.read_text("utf-8")
    }
    internal = {"safevlm.commands", "safevlm.backbone.families"}
    assert {f"api/{package}.md" for package in packages - internal} <= pages


def test_the_architecture_page_has_the_layers_of_the_contract_and_a_test_for_every_rule():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    contracts = (ROOT / "pyproject.toml").read_text("utf-8")  # Python 3.10 has no tomllib
    layers = re.findall(
        r'^  "(.+)",$', contracts.split("\nlayers = [", 1)[1].split("\n]", 1)[0], re.MULTILINE
    )
    assert page.split("```layers\n", 1)[1].split("\n```", 1)[0].splitlines() == layers
    rules = page.split("\n## Rules\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in rules.splitlines() if line.startswith("| **")]
    assert len(rows) >= 10
    assert all(TESTED.search(row) for row in rows)


def test_the_readme_lists_every_extra():
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.split("| extra |")[1].split("\n\n")[0]
    declared = (
        (ROOT / "pyproject.toml")
        .read_text("utf-8")
        .split("[project.optional-dependencies]")[1]
        .split("\n[")[0]
    )
    extras = set(re.findall(r"^(\w+) = ", declared, re.MULTILINE)) - {"dev", "data"}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == extras


def test_the_container_copies_what_is_there_and_does_not_run_as_root():
    text = (ROOT / "Dockerfile").read_text("utf-8")
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    kept = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert {f"!{name}" for name in copied} <= set(kept)
    assert re.search(r"^USER (?!root)\w+$", text, re.MULTILINE)
