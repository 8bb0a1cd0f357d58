"""What several commands read of their flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safevlm.policy import Policy

MINI = "safevlm-mini"


def check_device(name: str | None) -> None:
    """Raise ValueError for a device that torch does not know or this machine does not have."""
    import torch

    try:
        device = torch.device(name or "cpu")
    except RuntimeError as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no CUDA device; leave the flag out to run on the CPU")


def read_policy(path: str | None, model: str) -> Policy | None:
    """The policy file, with the model's own taxonomy where it names none."""
    if path is None:
        return None
    from safevlm import checkpoint
    from safevlm.policy import Policy

    return Policy.from_yaml(path, checkpoint.load_config(checkpoint.fetch(model)).taxonomy)
