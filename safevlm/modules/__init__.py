"""What has weights: projector, tokens, head, their exact folding, and the losses.

Plain numbers in, tensors out. Nothing here knows a Hugging Face model, a taxonomy or a threshold.
"""

from .fold import FoldedScorer, KeptFold, fold, folded_weights
from .head import HeadOutput, SafetyHead
from .losses import LossParts, answer_losses, safety_loss, total_loss
from .projector import SafetyProjector
from .safety import SafetyDims, SafetyModules
from .tokens import SafetyTokens

__all__ = [
    "FoldedScorer",
    "HeadOutput",
    "KeptFold",
    "LossParts",
    "SafetyDims",
    "SafetyHead",
    "SafetyModules",
    "SafetyProjector",
    "SafetyTokens",
    "answer_losses",
    "fold",
    "folded_weights",
    "safety_loss",
    "total_loss",
]
