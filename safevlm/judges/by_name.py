"""The judges of this library by their names."""

from __future__ import annotations

from collections.abc import Sequence

from .concept_rules import RuleJudge
from .trained import TrainedJudge

JUDGES: dict[str, type[RuleJudge | TrainedJudge]] = {"rules": RuleJudge, "trained": TrainedJudge}
"""Name -> class of a judge that needs no server."""


def judges_by_name(names: Sequence[str]) -> list[RuleJudge | TrainedJudge]:
    """A judge for each name, in order; raises ValueError for a name that is not in `JUDGES`."""
    if unknown := sorted(set(names) - set(JUDGES)):
        raise ValueError(
            f"no judge of the name {', '.join(unknown)}; there are {', '.join(JUDGES)}, and models on a server"
        )
    return [JUDGES[name]() for name in names]
