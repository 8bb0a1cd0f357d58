"""A limit: which shards are read, and how far."""

from __future__ import annotations

import json
from pathlib import Path

from safevlm.data.jsonl import JsonlSource
from safevlm.scan.plan import plan_shards


def test_a_limit_reads_the_rows_of_text_in_front_of_its_images(tmp_path: Path) -> None:
    rows = [
        {"text": "a"},
        {"text": "b"},
        {"image": "1.jpg"},
        {"text": "c"},
        {"image": "2.jpg"},
        {"text": "d"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = JsonlSource(str(path), rows_per_shard=2)
    takes = [planned.take for planned in plan_shards(source, source.shards(), 1)]
    assert takes == [None, 1, 0]  # the first has no images and is read whole, the last is not reached
