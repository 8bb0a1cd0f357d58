"""Flags that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safevlm.config import SafetyConfig
    from safevlm.policy import Policy

MINI = "safevlm-mini"


def check_device(name: str | None) -> None:
    """Raises ValueError if torch does not know the device or this machine cannot compute on it."""
    if name is None or name == "cpu":
        return
    import torch

    try:
        # read back, since some devices, such as `meta`, make tensors without values
        (torch.zeros(1, device=torch.device(name)) + 1).item()
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        said = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(
            f"--device {name}: cannot be used here ({said}); omit the flag to run on the CPU"
        ) from error


def read_policy(path: str | None, model: str) -> Policy | None:
    """Read a policy file; None without one. A file that names no taxonomy gets the model's.

    Raises:
        ValueError: the file is malformed, or does not fit the taxonomy.
        OSError: the file cannot be read.
    """
    if path is None:
        return None
    from safevlm import checkpoint
    from safevlm.policy import Policy

    return Policy.from_yaml(path, checkpoint.load_config(checkpoint.fetch(model)).taxonomy)


def rule_text(path: str | None, policy: Policy, config: SafetyConfig) -> str:
    """What calls an image unsafe, and where that comes from, in words.

    Args:
        path: of the policy file; None: the model's default policy.
        policy: that is in use.
        config: of the model.
    """
    if path is not None:
        rule = "argmax" if policy.rule == "argmax" else f"threshold {policy.threshold:.3g}"
        return f"{rule}, by {path}"
    if config.operating_point is not None:
        return f"{config.operating_point.text} (the model's operating point)"
    return f"score >= {policy.threshold:.3g}, the default: the model has no operating point"
