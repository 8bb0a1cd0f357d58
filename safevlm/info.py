"""Information about the installation: versions, device, embedded checkpoints."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from safevlm.backbone import FAMILIES, TOWERS
from safevlm.checkpoint import embedded, hashes

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
        `towers`, and `checkpoints`: name of each embedded checkpoint -> file name -> SHA-256.
    """
    folder = Path(str(files("safevlm.checkpoints")))
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": _device(),
        "families": sorted(FAMILIES),
        "towers": sorted(TOWERS),
        "checkpoints": {name: hashes(folder / name) for name in embedded()},
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
