"""SafeVLM: safety modules for open vision-language models."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safevlm.backbone import load_backbone
    from safevlm.config import SafetyConfig
    from safevlm.errors import SafeVLMError
    from safevlm.guard import SafeVLM
    from safevlm.policy import Policy
    from safevlm.scorer import RiskScorer
    from safevlm.taxonomy import Taxonomy
    from safevlm.types import Action, RiskAssessment, Verdict

__version__ = version("safevlm")

_HOMES = {
    "Action": "types",
    "Policy": "policy",
    "RiskAssessment": "types",
    "RiskScorer": "scorer",
    "SafeVLM": "guard",
    "SafeVLMError": "errors",
    "SafetyConfig": "config",
    "Taxonomy": "taxonomy",
    "Verdict": "types",
    "load_backbone": "backbone",
}

__all__ = [
    "Action",
    "Policy",
    "RiskAssessment",
    "RiskScorer",
    "SafeVLM",
    "SafeVLMError",
    "SafetyConfig",
    "Taxonomy",
    "Verdict",
    "load_backbone",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that `import safevlm` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(
            f"module 'safevlm' has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    return getattr(import_module(f"safevlm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
