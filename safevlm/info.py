"""Information about the installation: versions, device, embedded checkpoints."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from safevlm.backbone import FAMILIES, TOWERS
from safevlm.checkpoint import CONFIG, embedded, hashes, load_config

PACKAGES = (
    "safevlm",
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "safetensors",
    "peft",
    "lightning",
    "pyarrow",
)


def collect() -> dict[str, Any]:
    """Collect what `safevlm info` shows, as plain values.

    Returns:
        `versions` of Python and packages (None if not installed), `device`, supported `families` of backbones and
        `towers`, `checkpoints`: name of each embedded checkpoint -> file name -> SHA-256, and `operating_points`: name
        of each embedded checkpoint of safety modules -> its operating point (None where it has none).
    """
    folder = Path(str(files("safevlm.checkpoints")))
    configs = {name: load_config(folder / name) for name in embedded() if (folder / name / CONFIG).is_file()}
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": _device(),
        "families": sorted(FAMILIES),
        "towers": sorted(TOWERS),
        "checkpoints": {name: hashes(folder / name) for name in embedded()},
        "operating_points": {
            name: None if config.operating_point is None else asdict(config.operating_point)
            for name, config in configs.items()
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu ({torch.get_num_threads()} threads)"
    )
