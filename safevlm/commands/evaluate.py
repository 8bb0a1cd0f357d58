"""`safevlm eval mini` and `safevlm eval scan`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from safevlm.printable import printable

from .options import MINI


def eval_mini(
    *,
    n: int = 500,
    seed: int = 0,
    photos: str | None = None,
    json: bool = False,
    markdown: bool = False,
) -> int:
    """Measure the embedded model without and with its guard, on held-out data it renders itself.

    Args:
        n: items per cell.
        seed: of the rendered test scenes and of the choice of photographs.
        photos: folder with photos64/ and prompts/; the columns that need photographs are empty without it.
        json: print {row: {column: {value, low, high, n}}}.
        markdown: print the README's table.
    """
    from safevlm import terminal
    from safevlm.demo import evaluate_mini
    from safevlm.evals import to_json, to_markdown

    with terminal.eval_progress(quiet=json or markdown) as advance:
        table = evaluate_mini(n=n, seed=seed, photos=photos, on_progress=advance)
    if json:
        print(json_module.dumps(to_json(table), indent=2))
    elif markdown:
        print(to_markdown(table))
    else:
        terminal.show_table(table)
    return 0


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
    """Count what scans found, and compare it with labels: precision, recall, kinds of false alarms.

    Args:
        scans: folders of finished scans.
        labels: table of labelled images (.parquet, .jsonl, .json or a folder, as for training); rows are matched
            by the images' bytes.
        model: the scans' model, whose levels the labels name.
        level: its column of levels.
        category: its column of categories.
        kind: its column of finer kinds, by which false alarms are listed.
        json: print {scan: {...}} instead of a Markdown table.
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
