"""The guard: backbone + scorer + policy, so that an answer respects the risk of what is asked."""

from .losses import SafetyOutput, answer_losses, head_output
from .model import SafeVLM

__all__ = ["SafeVLM", "SafetyOutput", "answer_losses", "head_output"]
