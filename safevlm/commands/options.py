"""Flags that several commands share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safevlm.config import SafetyConfig
    from safevlm.policy import Policy

MINI = "safevlm-mini"
AUTO = "auto"
"""The device that is the GPU where there is one, and else the CPU."""


def chosen_device(name: str | None) -> str | None:
    """The torch device of a flag; raises ValueError if torch does not know it or this machine cannot compute on it."""
    if name is None or name == "cpu":
        return name
    import torch

    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # read back, since some devices, such as `meta`, make tensors without values
        (torch.zeros(1, device=torch.device(name)) + 1).item()
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        said = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(
            f"--device {name}: cannot be used here ({said}); omit the flag to run on the GPU if there is one, "
            "else on the CPU"
        ) from error
    return name


def read_policy(path: str | None, model: str, threshold: float | None = None) -> Policy | None:
    """The policy of a file, or the model's own, with another threshold where one is given; None for neither.

    A file that names no taxonomy gets the model's. A threshold takes the place of those of single categories, too.

    Raises:
        ValueError: the file is malformed, or does not fit the taxonomy; the threshold is not in (0, 1], or the policy's
            rule has none.
        OSError: the file cannot be read.
    """
    if path is None and threshold is None:
        return None
    from safevlm import checkpoint
    from safevlm.policy import Policy

    taxonomy = checkpoint.load_config(checkpoint.fetch(model)).taxonomy
    policy = Policy(taxonomy) if path is None else Policy.from_yaml(path, taxonomy)
    return policy if threshold is None else replace(policy, threshold=threshold, thresholds={})


def rule_text(path: str | None, policy: Policy, config: SafetyConfig, threshold: float | None = None) -> str:
    """What calls an image unsafe, and where that comes from, in words.

    Args:
        path: of the policy file; None: the model's default policy.
        policy: that is in use.
        config: of the model.
        threshold: of the command line; None: that of the policy.
    """
    if threshold is not None:
        return f"score >= {threshold:.3g}, by --threshold"
    if path is not None:
        rule = "argmax" if policy.rule == "argmax" else f"threshold {policy.threshold:.3g}"
        return f"{rule}, by {path}"
    if config.operating_point is not None:
        return f"{config.operating_point.text} (the model's operating point)"
    return f"score >= {policy.threshold:.3g}, the default: the model has no operating point"
