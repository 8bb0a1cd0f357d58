"""Bends an LLM's activations without training it: directions, and what is done with them."""

from .direction import Axis, Direction
from .extract import Fitted, fit_direction
from .states import last_states

__all__ = ["Axis", "Direction", "Fitted", "fit_direction", "last_states"]
