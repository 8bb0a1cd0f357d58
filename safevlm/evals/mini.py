"""The evaluation of the embedded model: rows that share one set of held-out items.

Two steps, so that answers can be kept and read: `collect` asks every responder about every set,
`tabulate` and `per_thing` count. `evaluate` does both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safevlm.backbone import load_backbone
from safevlm.checkpoint import fetch, load_config, resolve
from safevlm.evals.cells import per_thing, tabulate
from safevlm.evals.replies import SETS, OnProgress, Sets, collect
from safevlm.evals.responders import Responder
from safevlm.evals.table import Evaluation
from safevlm.guard import SafeVLM
from safevlm.policy import Policy
from safevlm.types import Action


def evaluate(
    rows: Mapping[str, Responder], sets: Sets, *, on_progress: OnProgress | None = None
) -> Evaluation:
    """Ask and count: the table of `rows`, in their order, with every column of `COLUMNS`, and counts per thing.

    Raises:
        ValueError: an unknown set, or as `collect`.
    """
    if unknown := sorted(set(sets) - set(SETS)):
        raise ValueError(f"unknown sets {unknown}; there are {', '.join(SETS)}")
    replies = collect(rows, sets, on_progress=on_progress)
    return Evaluation(tabulate(replies, sets), per_thing(replies, sets))


def hinting(name: str | Path, **reading: Any) -> tuple[SafeVLM, Policy]:
    """A guard, and its own policy with a hint at every risky level, so that all answers are the LLM's own.

    The tower's BatchNorms are folded, as a scorer's are: features equal to 1e-4, and quicker on a CPU.

    Args:
        name: name or folder of safety modules.
        reading: `read_text` and `reader`, as in `SafeVLM.from_pretrained`.
    """
    config = load_config(fetch(name))
    backbone = load_backbone(resolve(config.backbone))
    backbone.tower.fold_norms()
    guard = SafeVLM.from_pretrained(name, backbone=backbone, **reading)
    levels = config.taxonomy.risky_levels
    return guard, replace(guard.policy, actions=dict.fromkeys(levels, Action.HINT))
