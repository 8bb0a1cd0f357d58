"""Rows with labels: tables of several formats -> checked rows, the same for training, calibration and evaluation."""

from .layout import Layout
from .table import LabelledRow, Needs, read_table

__all__ = ["LabelledRow", "Layout", "Needs", "read_table"]
