"""Unsafe concepts: does a model see them (perception), call them unsafe in words and in images (alignment), and how far apart
are the two (modality gap)? After arXiv 2507.11155."""

from .ask import MAX_NEW_TOKENS, ask
from .cache import AnswerCache
from .measures import COLUMNS, Cell, Measured, Row, measure
from .probes import KINDS, Probe, make_probes
from .table import WORDS, category_bars, concept_cell, concepts_markdown, label
from .targets import Answer, EndpointTarget, GuardTarget, PlainTarget, Target, version_of

__all__ = [
    "COLUMNS",
    "KINDS",
    "MAX_NEW_TOKENS",
    "WORDS",
    "Answer",
    "AnswerCache",
    "Cell",
    "EndpointTarget",
    "GuardTarget",
    "Measured",
    "PlainTarget",
    "Probe",
    "Row",
    "Target",
    "ask",
    "category_bars",
    "concept_cell",
    "concepts_markdown",
    "label",
    "make_probes",
    "measure",
    "version_of",
]
