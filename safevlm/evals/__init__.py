"""Evaluations: how answers are judged, what is counted, and the table of the embedded model."""

from safevlm.evals.cells import per_thing, tabulate
from safevlm.evals.clusters import (
    ClusteredEstimate,
    clustered_auroc,
    clustered_difference,
    clustered_mean,
    clustered_proportion,
)
from safevlm.evals.metrics import Estimate, accuracy, auroc, matches, normalise_answer, proportion
from safevlm.evals.mini import evaluate, hinting
from safevlm.evals.replies import SETS, OnProgress, Replies, collect
from safevlm.evals.responders import EvalItem, GuardResponder, Responder
from safevlm.evals.steering import PARTS as STEERING_PARTS
from safevlm.evals.steering import steering_cell, steering_markdown
from safevlm.evals.steering_mini import SteeringEvaluation, evaluate_steering
from safevlm.evals.table import (
    COLUMNS,
    PLAIN,
    READER,
    ROWS,
    Evaluation,
    Table,
    cell_text,
    to_json,
    to_markdown,
)

__all__ = [
    "COLUMNS",
    "PLAIN",
    "READER",
    "ROWS",
    "SETS",
    "STEERING_PARTS",
    "ClusteredEstimate",
    "Estimate",
    "EvalItem",
    "Evaluation",
    "GuardResponder",
    "OnProgress",
    "Replies",
    "Responder",
    "SteeringEvaluation",
    "Table",
    "accuracy",
    "auroc",
    "cell_text",
    "clustered_auroc",
    "clustered_difference",
    "clustered_mean",
    "clustered_proportion",
    "collect",
    "evaluate",
    "evaluate_steering",
    "hinting",
    "matches",
    "normalise_answer",
    "per_thing",
    "proportion",
    "steering_cell",
    "steering_markdown",
    "tabulate",
    "to_json",
    "to_markdown",
]
