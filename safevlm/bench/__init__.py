"""Benchmark: speed compared with the bare tower and the bare backbone, on the machine it runs on."""

from .measure import Timing, interleave, measure, paired_ratio
from .results import Result
from .runner import ROWS, parse_rows, run
from .setup import Setup
from .table import HEADINGS, cells, describe, notes, to_json, to_markdown

__all__ = [
    "HEADINGS",
    "ROWS",
    "Result",
    "Setup",
    "Timing",
    "cells",
    "describe",
    "interleave",
    "measure",
    "notes",
    "paired_ratio",
    "parse_rows",
    "run",
    "to_json",
    "to_markdown",
]
