"""Every example and the README's own code run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 40
    assert run(path.read_text(), tmp_path).strip()


def test_readme_python(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    assert run(blocks[0], tmp_path).strip()


def test_readme_commands_exist():
    """Every `safevlm ...` line of the README parses."""
    from safevlm.commands import COMMANDS

    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^(?:\$ )?safevlm (\w+)", text, re.MULTILINE))
    assert named <= {*(words.split()[0] for words in COMMANDS), "train"}
    assert {"assess", "scan"} <= named
