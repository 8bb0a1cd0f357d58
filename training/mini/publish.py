"""Trained folders -> the embedded checkpoints, with a manifest of where they come from."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from pathlib import Path

from jsonargparse import auto_cli

from safevlm.checkpoint import CONFIG, hashes
from safevlm.config import SafetyConfig
from safevlm.guard import SafeVLM

LOGGER = logging.getLogger(__name__)
BASE, STAGE1, STAGE2 = "safevlm-mini-base", "safevlm-mini-stage1", "safevlm-mini"
LIMIT = 24 * 2**20
"""Bytes that the three may take together."""
ROOT = Path(__file__).parents[2]

RECIPES = {
    BASE: "training/mini/README.md: mini.pretrain; the tower: NOTICE",
    STAGE1: "training/mini/README.md: mini.safety_table, safevlm train head --config mini_head",
    STAGE2: "training/mini/README.md: safevlm train joint --config mini_joint",
}


def publish(base: Path, stage1: Path, stage2: Path, *, data: str, out: Path = ROOT / "checkpoints") -> None:
    """Copy three trained folders to `out` and write `manifest.toml`.

    Args:
        base: the plain VLM, a Hugging Face folder.
        stage1: what `safevlm train head` wrote.
        stage2: what `safevlm train joint` wrote.
        data: one line that says what it was all trained on.

    Raises:
        ValueError: the three are larger than 24 MiB together.
    """
    sources = {BASE: base, STAGE1: stage1, STAGE2: stage2}
    for name, source in sources.items():
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(source, out / name)
        if name != BASE:
            _rename_backbone(out / name)
    files = [path for name in sources for path in (out / name).rglob("*") if path.is_file()]
    if (size := sum(path.stat().st_size for path in files)) > LIMIT:
        raise ValueError(f"the checkpoints in {out} take {size} bytes, {LIMIT} at most; shrink the model")
    shutil.copy(Path(__file__).with_name("NOTICE"), out)
    (out / "manifest.toml").write_text(_manifest(out, data), "utf-8")
    LOGGER.info("%.1f MiB in %s", size / 2**20, out)


def _rename_backbone(folder: Path) -> None:
    """Bind the checkpoint to the embedded backbone's name, not the folder it was trained from; weights in float16."""
    config = SafetyConfig.from_json((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(config.with_changes(backbone=BASE).to_json(), "utf-8")
    guard = SafeVLM.from_pretrained(folder)
    guard.safety.half()
    for name, parameter in guard.backbone.model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.half()
    guard.save_pretrained(folder)


def _manifest(out: Path, data: str) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        "# Where the embedded checkpoints come from. `commit` is the tree that published them; metrics.json is what",
        "# `safevlm eval mini --n 300 --photos DATA --json` printed for these weights.",
    ]
    for name, recipe in RECIPES.items():
        lines += [
            "",
            f"[{name}]",
            f"recipe = {json.dumps(recipe)}",
            f"commit = {json.dumps(commit)}",
            f"data = {json.dumps(data)}",
            f"metrics = {json.dumps('metrics.json')}",
            f"[{name}.sha256]",
            *(f"{json.dumps(path)} = {json.dumps(digest)}" for path, digest in hashes(out / name).items()),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    auto_cli(publish)
