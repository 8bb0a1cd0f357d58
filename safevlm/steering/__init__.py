"""Bends an LLM's activations without training it: directions, and what is done with them."""

from .astra import Astra, fit_centre
from .batch import Batch
from .cmrm import CMRM
from .direction import Axis, Direction
from .hooks import Method, steered
from .mean_difference import MeanDifference
from .projection import Projection
from .prompts import ecso, goal_priority, self_reminder
from .vectors import LayerVectors
from .vlm_guard import VLMGuard

__all__ = [
    "Astra",
    "Axis",
    "Batch",
    "CMRM",
    "Direction",
    "LayerVectors",
    "MeanDifference",
    "Method",
    "Projection",
    "VLMGuard",
    "ecso",
    "fit_centre",
    "goal_priority",
    "self_reminder",
    "steered",
]
