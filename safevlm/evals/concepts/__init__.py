"""Unsafe concepts: does a model see them (perception), call them unsafe in words and in images (alignment), and how far apart
are the two (modality gap)? After arXiv 2507.11155."""

from .ask import MAX_NEW_TOKENS, ask
from .cache import AnswerCache
from .files import write_measured
from .general import general_accuracy, general_probes
from .loading import load_guard_target, load_plain_target
from .measures import COLUMNS, Cell, Measured, Row, measure
from .probes import KINDS, Probe, make_probes
from .table import WORDS, category_bars, columns_of, concepts_markdown, label, row_cell
from .targets import (
    Answer,
    EndpointTarget,
    GuardTarget,
    PlainTarget,
    Target,
    version_of,
)
from .traits import TRAITS, names_concept, traits

__all__ = [
    "COLUMNS",
    "KINDS",
    "MAX_NEW_TOKENS",
    "TRAITS",
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
    "columns_of",
    "concepts_markdown",
    "general_accuracy",
    "general_probes",
    "label",
    "load_guard_target",
    "load_plain_target",
    "make_probes",
    "measure",
    "names_concept",
    "row_cell",
    "traits",
    "version_of",
    "write_measured",
]
