"""The commands for contributors agree: Makefile, pre-commit, continuous integration, and the tests' markers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def recipe(target: str) -> list[str]:
    """Commands of a target of the Makefile, with its variables replaced."""
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+) :?\??= (.+)$", text, re.MULTILINE))
    body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert body, target
    lines = body[1]
    while re.search(r"\$\(\w+\)", lines):
        lines = re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], lines)
    return [line.strip() for line in lines.splitlines()]


def test_pre_commit_runs_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == recipe("lint")
    assert not any(hook["pass_filenames"] for hook in hooks)


def test_the_fast_tests_leave_out_every_marker(pytestconfig: pytest.Config):
    ours = (ROOT / "pyproject.toml").read_text().split("\nmarkers = [", 1)[1].split("\n]", 1)[0]
    markers = re.findall(r'^  "(\w+): ', ours, re.MULTILINE)
    assert set(markers) <= {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    (fast,) = recipe("test-fast")
    assert fast.endswith(f'-m "not ({" or ".join(markers)})"')
    (whole,) = recipe("test")
    assert fast.startswith(whole)
    assert " -m " not in whole.removeprefix(".venv/bin/python -m pytest")


def test_continuous_integration_runs_lint_builds_the_site_and_runs_all_tests():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make lint", "make docs", "make test"} <= set(lines)
