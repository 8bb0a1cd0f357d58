"""`safevlm eval scan`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from safevlm.printable import printable

from .options import MINI


def eval_scan(
    scans: list[str],
    *,
    labels: str | None = None,
    model: str = MINI,
    level: str = "risk_level",
    category: str = "risk_category",
    kind: str = "label",
    json: bool = False,
) -> int:
    """Count what scans found, and hold it against labels: precision, recall, kinds of false alarms.

    Args:
        scans: folders of finished scans.
        labels: Parquet file of labelled images; rows are matched by the images' bytes.
        model: the scans' model, whose levels the labels name.
        level: its column of levels.
        category: its column of categories.
        kind: its column of finer kinds, by which false alarms are listed.
        json: print {scan: {...}} instead of a Markdown table.
    """
    from safevlm import checkpoint
    from safevlm.evals.scan import findings, read_labels, to_markdown

    taxonomy = checkpoint.load_config(checkpoint.fetch(model)).taxonomy
    known = None
    if labels is not None:
        known = read_labels(Path(labels), level=level, category=category, kind=kind)
    table = {scan: findings(Path(scan), taxonomy, known) for scan in scans}
    if json:
        print(json_module.dumps({scan: found.to_dict() for scan, found in table.items()}, indent=2))
    else:
        text = to_markdown({Path(scan).name: found for scan, found in table.items()})
        print(printable(text, lines=True))
    return 0
