"""The stairs of the design, and what a package owes its users."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import safevlm

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "safevlm").rglob("*.py"), *(ROOT / "training").rglob("*.py")])
ABOVE_TRAINING = {"safevlm/commands/train.py", "safevlm/demo.py", "safevlm/bench/head.py"}


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
    )


def test_rooms_import_from_lower_steps_only():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("safevlm/utils.py", "", "safevlm.utils"),
        ("safevlm/data/extra.py", "import safevlm.scorer", "safevlm.data.extra -> safevlm.scorer"),
        (
            "safevlm/report/extra.py",
            "def f():\n    import transformers",
            "safevlm.report.extra -> transformers",
        ),
        ("safevlm/scan/extra.py", "import lightning", "safevlm.scan.extra -> lightning"),
        ("training/extra.py", "import safevlm.cli", "training.extra -> safevlm.cli"),
        ("training/extra.py", "import ray", "training.extra -> ray"),
    ],
)
def test_a_stray_module_breaks_a_contract(tmp_path, file, line, contract):
    for name in ("safevlm", "training"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / file).write_text(f"{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert contract in done.stdout


def test_only_the_top_of_the_stairs_uses_training():
    """import-linter sees `training` where it lies, and not under its installed name."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(name.startswith("safevlm.training") for name in imports(path))
    }
    assert users <= ABOVE_TRAINING


def test_import_safevlm_is_light():
    code = "import sys, safevlm; print([m for m in ('torch', 'transformers', 'PIL', 'yaml') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_at_most_ten_public_names_and_each_exists():
    assert len(safevlm.__all__) <= 10
    for name in safevlm.__all__:
        assert getattr(safevlm, name).__name__ == name
    with pytest.raises(AttributeError, match="public names"):
        safevlm.Nothing  # noqa: B018


def test_every_module_imports():
    import safevlm.training

    for package in (safevlm, safevlm.training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def test_every_package_is_listed_for_the_wheel():
    text = (
        (ROOT / "pyproject.toml").read_text().split("packages = [", 1)[1].split("]", 1)[0]
    )  # 3.10 has no tomllib
    listed = {line.strip().strip('",') for line in text.splitlines() if line.strip()}
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in SOURCES if p.name == "__init__.py"}
    there = {name if name.startswith("safevlm") else f"safevlm.{name}" for name in there}
    assert listed == there | {"safevlm.checkpoints"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 400
