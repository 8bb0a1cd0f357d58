"""Rows with labels: tables of several formats -> checked rows, the same for training, calibration and evaluation."""

from .layout import Layout
from .pairs import PromptPairs, read_pairs
from .table import LabelledRow, Needs, read_table

__all__ = ["LabelledRow", "Layout", "Needs", "PromptPairs", "read_pairs", "read_table"]
