"""The guard: backbone + scorer + policy, so that an answer respects the risk of what is asked."""

from .model import SafetyOutput, SafeVLM

__all__ = ["SafeVLM", "SafetyOutput"]
