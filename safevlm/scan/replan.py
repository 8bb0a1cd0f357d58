"""An earlier run's plan and the source as it is now -> what is left to scan; what is done binds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from safevlm.data import Shard, Source
from safevlm.scan.ledger import DONE, Ledger, ShardState
from safevlm.scan.plan import PlannedShard, file_of, plan_shards

logger = logging.getLogger(__name__)


def replan(ledger: Ledger, source: Source, shards: Sequence[Shard], limit: int | None) -> None:
    """Plan what is not done anew, where the source changed there.

    A file that could not be read may have other shards once it is mended; they take the place of
    those that were not done. Shards of other files are no part of the scan that was begun.

    Args:
        ledger: with a plan of which something came.
        source, shards: as they are now.
        limit: of the scan.

    Raises:
        DataError: a shard that is done has changed or is gone, or a file is new.
    """
    states = list(ledger.shards())
    ledger.refuse(list(_differences(states, shards)))
    before = {state.planned.shard.name: state for state in states}
    unchanged = {name: state.planned.shard.signature for name, state in before.items()}
    if unchanged == {shard.name: shard.signature for shard in shards}:
        return
    left = [s for s in shards if s.name not in before or before[s.name].status != DONE]
    if limit is not None:
        limit -= sum(state.planned.take or 0 for state in states if state.status == DONE)
    numbers = _numbers(before)
    planned = [
        PlannedShard(
            next(numbers) if p.shard.name not in before else before[p.shard.name].planned.number,
            p.shard,
            p.take,
        )
        for p in plan_shards(source, left, limit)
    ]
    stays = {state.planned for state in states if state.status != DONE} & set(planned)
    gone = [s.planned.number for s in states if s.status != DONE and s.planned not in stays]
    lost = set(before) - {shard.name for shard in shards}
    if lost:
        logger.warning("%d shards that were not done are gone from the source (%s ...)", len(lost), min(lost))
    ledger.replace(gone, [p for p in planned if p not in stays])


def _differences(states: Sequence[ShardState], shards: Sequence[Shard]) -> Iterator[str]:
    found = {shard.name: shard for shard in shards}
    unfinished = {file_of(state.planned.shard.name) for state in states if state.status != DONE}
    known = set()
    for state in states:
        name = state.planned.shard.name
        known.add(name)
        if state.status != DONE:
            continue
        if name not in found:
            yield f"the shard {name} is gone"
        elif found[name].signature != state.planned.shard.signature:
            yield f"the shard {name} changed since it was scanned"
    for name in found:
        if name not in known and file_of(name) not in unfinished:
            yield f"the shard {name} is new"


def _numbers(before: Mapping[str, ShardState]) -> Iterator[int]:
    """Numbers that no shard has."""
    return count(1 + max(state.planned.number for state in before.values()))
