"""What several commands read of their flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safevlm.policy import Policy

MINI = "safevlm-mini"


def check_device(name: str | None) -> None:
    """Raise ValueError for a device that torch does not know or that this machine cannot compute on."""
    if name is None or name == "cpu":
        return
    import torch

    try:
        # computed and read back: `meta` and some others give tensors without values
        (torch.zeros(1, device=torch.device(name)) + 1).item()
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        said = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(
            f"--device {name}: cannot be used here ({said}); leave the flag out to run on the CPU"
        ) from error


def read_policy(path: str | None, model: str) -> Policy | None:
    """The policy file, with the model's own taxonomy where it names none."""
    if path is None:
        return None
    from safevlm import checkpoint
    from safevlm.policy import Policy

    return Policy.from_yaml(path, checkpoint.load_config(checkpoint.fetch(model)).taxonomy)
