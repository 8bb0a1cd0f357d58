"""Rows with labels: tables of several formats -> checked rows, the same for training, calibration and evaluation."""

from .concept_questions import ConceptQuestions
from .concepts import ConceptImage, ConceptSet, read_concepts
from .layout import Layout
from .pairs import PromptPairs, read_pairs
from .table import LabelledRow, Needs, read_table

__all__ = [
    "ConceptImage",
    "ConceptQuestions",
    "ConceptSet",
    "LabelledRow",
    "Layout",
    "Needs",
    "PromptPairs",
    "read_concepts",
    "read_pairs",
    "read_table",
]
