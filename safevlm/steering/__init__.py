"""Bends an LLM's activations without training it: directions, and what is done with them."""

from .astra import Astra, fit_centre
from .batch import Batch
from .cmrm import CMRM
from .direction import Axis, Direction
from .extract import Fitted, fit_direction
from .hooks import Method, steered
from .mean_difference import MeanDifference
from .projection import Projection
from .prompts import ecso, goal_priority, self_reminder
from .states import last_states
from .vectors import LayerVectors
from .vlm_guard import VLMGuard

__all__ = [
    "CMRM",
    "Astra",
    "Axis",
    "Batch",
    "Direction",
    "Fitted",
    "LayerVectors",
    "MeanDifference",
    "Method",
    "Projection",
    "VLMGuard",
    "ecso",
    "fit_centre",
    "fit_direction",
    "goal_priority",
    "last_states",
    "self_reminder",
    "steered",
]
