"""What a runner is given."""

from __future__ import annotations

from dataclasses import dataclass

from safevlm.scan.model import Model
from safevlm.scan.options import ScanOptions
from safevlm.scan.plan import PlannedShard
from safevlm.scan.reader import ShardReader


@dataclass(frozen=True)
class Job:
    """Shards to scan, in order, and with what. Runners give the scored batches of each shard in order."""

    todo: tuple[PlannedShard, ...]
    reader: ShardReader
    model: Model
    options: ScanOptions
