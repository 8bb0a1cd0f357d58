"""What reads an answer: whether it refuses, and whether it complies."""

from .rules import Judgement, judge, normalise

__all__ = ["Judgement", "judge", "normalise"]
