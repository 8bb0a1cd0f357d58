"""Evaluations: how answers are judged, what is counted, and the table of the embedded model."""

from safevlm.evals.metrics import Estimate, accuracy, auroc, matches, normalise_answer, proportion
from safevlm.evals.mini import OnProgress, Replies, collect, evaluate, tabulate
from safevlm.evals.responders import EvalItem, GuardResponder, Responder
from safevlm.evals.table import COLUMNS, ROWS, Table, to_json, to_markdown

__all__ = [
    "COLUMNS",
    "ROWS",
    "Estimate",
    "EvalItem",
    "GuardResponder",
    "OnProgress",
    "Replies",
    "Responder",
    "Table",
    "accuracy",
    "auroc",
    "collect",
    "evaluate",
    "matches",
    "normalise_answer",
    "proportion",
    "tabulate",
    "to_json",
    "to_markdown",
]
