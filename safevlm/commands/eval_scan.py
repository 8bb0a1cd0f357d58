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
    """Count what scans flagged, and compare it with labels: precision, recall, AUROC, false positives.

    Args:
        scans: folders of finished scans.
        labels: table of labelled images (.parquet, .jsonl, .json or a folder, as for training), which are matched to
            rows by the images' bytes.
        model: the model of the scans, which defines the names of levels and categories.
        level: column of the labels with the risk level.
        category: column of the labels with the risk category.
        kind: column of the labels with a finer class, by which false positives are listed.
        json: print JSON, {scan: {...}}, instead of a Markdown table.
    """
    from safevlm import checkpoint
    from safevlm.evals.scan import findings, read_labels, to_markdown

    known = None
    if labels is not None:
        taxonomy = checkpoint.load_config(checkpoint.fetch(model)).taxonomy
        known = read_labels(Path(labels), taxonomy, level=level, category=category, kind=kind)
    table = {scan: findings(Path(scan), known) for scan in scans}
    if json:
        print(json_module.dumps({scan: found.to_dict() for scan, found in table.items()}, indent=2))
    else:
        text = to_markdown({Path(scan).name: found for scan, found in table.items()})
        print(printable(text, lines=True))
    return 0
