"""The evaluation of the embedded model: rows that share one set of held-out items.

Two steps, so that answers can be kept and read: `collect` asks every responder about every set,
`tabulate` and `per_thing` count. `evaluate` does both.
"""

from __future__ import annotations

from collections.abc import Mapping

from safevlm.evals.cells import per_thing, tabulate
from safevlm.evals.replies import OnProgress, Sets, collect
from safevlm.evals.responders import Responder
from safevlm.evals.table import Evaluation


def evaluate(
    rows: Mapping[str, Responder], sets: Sets, *, on_progress: OnProgress | None = None
) -> Evaluation:
    """Ask and count: the table of `rows`, in their order, with every column of `COLUMNS`, and counts per thing.

    Raises:
        ValueError: as `collect`.
    """
    replies = collect(rows, sets, on_progress=on_progress)
    return Evaluation(tabulate(replies, sets), per_thing(replies, sets))
