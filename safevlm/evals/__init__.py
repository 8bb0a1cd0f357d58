"""Evaluations: how answers are judged, what is counted, and the table of the embedded model."""

from safevlm.estimate import Estimate, proportion
from safevlm.evals.cells import per_thing, tabulate
from safevlm.evals.clusters import (
    ClusteredEstimate,
    clustered_auroc,
    clustered_difference,
    clustered_gap,
    clustered_mean,
    clustered_proportion,
)
from safevlm.evals.metrics import accuracy, auroc, matches, normalise_answer
from safevlm.evals.mini import evaluate, hinting
from safevlm.evals.replies import SETS, OnProgress, Replies, collect
from safevlm.evals.responders import EvalItem, GuardResponder, Responder
from safevlm.evals.steered import EcsoResponder
from safevlm.evals.steering import (
    ORDINARY,
    answer_losses,
    steering_cell,
    steering_markdown,
    tabulate_steering,
    time_ratios,
)
from safevlm.evals.steering import PARTS as STEERING_PARTS
from safevlm.evals.steering_rows import ROWS as STEERING_ROWS
from safevlm.evals.steering_rows import SteeringEvaluation, candidates, choose, steering_rows
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
    "ORDINARY",
    "PLAIN",
    "READER",
    "ROWS",
    "SETS",
    "STEERING_PARTS",
    "STEERING_ROWS",
    "ClusteredEstimate",
    "EcsoResponder",
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
    "answer_losses",
    "auroc",
    "candidates",
    "cell_text",
    "choose",
    "clustered_auroc",
    "clustered_difference",
    "clustered_gap",
    "clustered_mean",
    "clustered_proportion",
    "collect",
    "evaluate",
    "hinting",
    "matches",
    "normalise_answer",
    "per_thing",
    "proportion",
    "steering_cell",
    "steering_markdown",
    "steering_rows",
    "tabulate",
    "tabulate_steering",
    "time_ratios",
    "to_json",
    "to_markdown",
]
