"""Bends an LLM's activations without training it: directions, and what is done with them."""

from .direction import Axis, Direction

__all__ = ["Axis", "Direction"]
