"""The core works without the packages of the extras; what needs one says how to install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow
EXTRAS = {
    "data": ["pyarrow"],
    "scan": ["webdataset", "datasets", "imagehash"],
    "ray": ["ray"],
    "train": ["lightning", "tensorboard", "torchmetrics"],
    "ocr": ["rapidocr_onnxruntime"],
    "onnx": ["onnx", "onnxscript"],
}


def run(code: str, missing: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter in which some packages cannot be imported."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    whole = f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n{code}"  # None: cannot be imported
    return subprocess.run(
        [sys.executable, "-c", whole], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (64, 64), "green").save(tmp_path / "green.png")
    return tmp_path / "green.png"


def test_the_core_is_used_with_no_extra_installed(image, tmp_path):
    code = """
from safevlm import Policy, RiskScorer, SafeVLM, Taxonomy
guard = SafeVLM.from_pretrained("safevlm-mini")
reply = guard.generate(["green.png"], ["What is this?"], max_new_tokens=4)[0]
alone = RiskScorer.from_pretrained("safevlm-mini").assess(["green.png"])[0]
assert abs(alone.score - guard.assess(["green.png"])[0].score) < 1e-6
assert Policy(Taxonomy.preset("safevlm")).threshold == 0.5
guard.save_pretrained("saved")
assert SafeVLM.from_pretrained("saved").assess(["green.png"])[0].score == guard.assess(["green.png"])[0].score
from safevlm.cli import main
raise SystemExit(main(["assess", "green.png"]))
"""
    done = run(code, [name for names in EXTRAS.values() for name in names], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "green.png" in done.stdout


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("pyarrow", ["scan", ".", "--out", "../out"]),
        ("lightning", ["train", "head"]),
        ("pyarrow", ["eval", "mini", "--n", "1"]),
        ("rapidocr_onnxruntime", ["assess", "green.png", "--read-text", "always"]),
        ("onnx", ["export-model", "--out", "../out"]),
        ("datasets", ["scan", "hf:someone/something", "--out", "../out"]),
    ],
)
def test_what_needs_an_extra_names_it_in_one_line(image, tmp_path, missing, command):
    code = f"from safevlm.cli import main\nraise SystemExit(main({command!r}))"
    done = run(code, [missing], tmp_path)
    assert done.returncode != 0
    assert "pip install 'safevlm[" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
