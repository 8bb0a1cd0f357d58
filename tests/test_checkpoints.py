"""The embedded checkpoints are the ones that the manifest describes, and small enough to ship."""

from __future__ import annotations

import ast
import json
from importlib.resources import files
from pathlib import Path

from safevlm.checkpoint import hashes

FOLDER = Path(str(files("safevlm.checkpoints")))


def manifest_hashes() -> dict[str, dict[str, str]]:
    """The [NAME.sha256] tables of manifest.toml (Python 3.10 has no TOML reader)."""
    found: dict[str, dict[str, str]] = {}
    table: dict[str, str] = {}
    for line in (FOLDER / "manifest.toml").read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            table = found.setdefault(name.removesuffix(".sha256"), {}) if name.endswith(".sha256") else {}
        elif " = " in line:
            key, value = line.split(" = ", 1)
            table[key.strip('"')] = ast.literal_eval(value)
    return found


def test_every_file_has_the_hash_of_the_manifest():
    described = manifest_hashes()
    there = {
        path.name: hashes(path) for path in FOLDER.iterdir() if path.is_dir() and path.name[0] not in "._"
    }
    assert described == there
    assert set(there) == {"safevlm-mini", "safevlm-mini-base", "safevlm-mini-stage1"}


def test_they_are_small_and_hold_no_pickle():
    paths = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in paths) <= 24 * 2**20
    known = {".safetensors", ".json", ".jinja", ".toml", ".md", ".py"}
    assert {path.suffix for path in paths if path.name != "NOTICE"} <= known


def test_no_config_names_a_path_of_the_machine_that_wrote_it():
    def strings(value):
        if isinstance(value, dict):
            return [text for part in value.values() for text in strings(part)]
        if isinstance(value, list):
            return [text for part in value for text in strings(part)]
        return [value] if isinstance(value, str) else []

    configs = sorted(FOLDER.glob("safevlm-mini*/**/*config.json"))
    assert configs
    for path in configs:
        assert not [text for text in strings(json.loads(path.read_text())) if text.startswith("/")], path
