"""The guard: backbone + scorer + policy, so that an answer respects the risk of what is asked."""

from .losses import SafetyOutput, lm_losses
from .model import SafeVLM

__all__ = ["SafeVLM", "SafetyOutput", "lm_losses"]
