"""`safevlm eval scan`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from safevlm.printable import printable


def eval_scan(
    scans: list[str],
    *,
    labels: str | None = None,
    model: str | None = None,
    level: str = "risk_level",
    category: str = "risk_category",
    kind: str = "label",
    json: bool = False,
) -> int:
    """Count what scans flagged, and compare it with labels: precision, recall, AUROC, false positives.

    Args:
        scans: folders of finished scans.
        labels: labelled images in any form that training reads: folders of classes, a table (.parquet, .jsonl, .json), or a
            report's marks; they are matched to rows by the images' bytes.
        model: the model that defines the names of levels and categories; by default the one that a scan's summary names.
        level: column of the labels with the risk level.
        category: column of the labels with the risk category.
        kind: column of the labels with a finer class, by which false positives are listed.
        json: print JSON, {scan: {...}}, instead of a Markdown table.
    """
    from safevlm import checkpoint
    from safevlm.evals.scan import Labels, findings, read_labels, to_markdown
    from safevlm.results.summary import read_summary

    known: dict[str, Labels] = {}  # by the model that the labels are read for

    def of(scan: str) -> Labels | None:
        if labels is None:
            return None
        name = model or read_summary(Path(scan)).get("model") or ""
        if name not in known:
            taxonomy = checkpoint.load_config(checkpoint.fetch(name)).taxonomy
            known[name] = read_labels(Path(labels), taxonomy, level=level, category=category, kind=kind)
        return known[name]

    table = {scan: findings(Path(scan), of(scan)) for scan in scans}
    if json:
        print(json_module.dumps({scan: found.to_dict() for scan, found in table.items()}, indent=2))
    else:
        text = to_markdown({Path(scan).name: found for scan, found in table.items()})
        print(printable(text, lines=True))
    return 0
