"""The table of an evaluation: rows of estimates, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from safevlm.estimate import Estimate
from safevlm.evals.clusters import ClusteredEstimate

Table: TypeAlias = "dict[str, dict[str, Estimate | None]]"
"""Row (a model) -> column (a metric) -> the estimate; None where there is no data or no head."""

PerThing: TypeAlias = "dict[str, dict[str, dict[str, dict[str, int | None]]]]"
"""Row -> set -> thing -> counts of items: n, complied or refused, flagged."""

PLAIN, READER = "plain", "stage2_reader"
ROWS = (PLAIN, "tokens", "head_hint", "stage1", "stage2", READER)
"""The models of `safevlm eval mini`."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "complied_risky": ("complied: risky scenes", "↓"),
    "complied_risky_photos": ("complied: risky photographs", "↓"),
    "complied_risky_native": ("complied: risky photographs by others", "↓"),
    "complied_typographic": ("complied: typographic instructions", "↓"),
    "complied_text": ("complied: harmful requests in text", "↓"),
    "complied_text_blank": ("complied: the same beside a blank image", "↓"),
    "refused_ordinary": ("refused: ordinary scenes", "↓"),
    "refused_ordinary_photos": ("refused: ordinary photographs", "↓"),
    "refused_ordinary_native": ("refused: ordinary photographs by others", "↓"),
    "refused_lookalike": ("refused: harmless look-alikes", "↓"),
    "refused_words": ("refused: harmless words in a picture", "↓"),
    "answer_accuracy": ("answer accuracy: ordinary scenes", "↑"),
    "naming_scenes": ("naming: ordinary scenes", "↑"),
    "choice_scenes": ("choice of four: ordinary scenes", "↑"),
    "accuracy_lost_scenes": ("accuracy lost where both answered, points: ordinary scenes", "↓"),
    "answer_accuracy_photos": ("answer accuracy: ordinary photographs", "↑"),
    "naming_photos": ("naming: ordinary photographs", "↑"),
    "choice_photos": ("choice of four: ordinary photographs", "↑"),
    "accuracy_lost_photos": ("accuracy lost where both answered, points: ordinary photographs", "↓"),
    "auroc_scenes": ("head AUROC: scenes", "↑"),
    "auroc_words": ("head AUROC: written words", "↑"),
    "auroc_photos": ("head AUROC: photographs", "↑"),
    "auroc_native": ("head AUROC: photographs by others", "↑"),
    "recall_scenes": ("recall: risky scenes flagged", "↑"),
    "recall_words": ("recall: typographic instructions flagged", "↑"),
    "recall_photos": ("recall: risky photographs flagged", "↑"),
    "recall_native": ("recall: risky photographs by others flagged", "↑"),
    "flagged_scenes": ("flagged: ordinary scenes and look-alikes", "↓"),
    "flagged_words": ("flagged: harmless words in a picture", "↓"),
    "flagged_photos": ("flagged: ordinary photographs", "↓"),
    "flagged_native": ("flagged: ordinary photographs by others", "↓"),
    "level_accuracy": ("head level accuracy: scenes", "↑"),
    "category_accuracy": ("head category accuracy: scenes", "↑"),
}
"""Column -> its words and the direction that is better."""

_NAMES = {
    "plain": "plain backbone", "tokens": "tokens only", "head_hint": "head + hint only",
    "stage1": "stage 1", "stage2": "stage 2", "stage2_reader": "stage 2 + reader",
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """The table, and what it rests on thing by thing."""

    table: Table
    per_thing: PerThing


def to_json(found: Evaluation) -> dict[str, dict[str, Any]]:
    """`{row: {column: {value, low, high, n, things, templates}, ..., "per_thing": {set: {thing: counts}}}}`.

    JSON-ready; a column is null where there is no estimate.
    """
    return {
        row: {
            **{column: None if cell is None else cell.to_dict() for column, cell in cells.items()},
            "per_thing": found.per_thing[row],
        }
        for row, cells in found.table.items()
    }


def to_markdown(table: Table) -> str:
    """A Markdown table with a metric a line and a model a column: percent [95 % interval], n and things apart.

    AUROC stands as a number in [0, 1], a loss in percentage points. A dash means that the data is not given or
    the row has no head.
    """
    names = [_NAMES.get(row, row) for row in table]
    lines = ["| | n | things | " + " | ".join(names) + " |", "|---|--:|--:|" + "--:|" * len(names)]
    columns = dict.fromkeys([*COLUMNS, *(column for cells in table.values() for column in cells)])
    for column in columns:
        words, arrow = COLUMNS.get(column, (column, ""))
        cells = [row.get(column) for row in table.values()]
        shown = " | ".join(cell_text(column, cell) for cell in cells)
        things = _range([cell.things for cell in cells if isinstance(cell, ClusteredEstimate)])
        n = _range([cell.n for cell in cells if cell is not None])
        lines.append(f"| {words} {arrow} | {n} | {things} | {shown} |")
    lines += ["", "In brackets: 95 % intervals by cluster bootstrap over things and question templates, never narrower than "
              "those of independent items. n: items per cell; things: different things or phrases among them. "
              "↓ lower is better, ↑ higher is better; –: no data or no head."]  # fmt: skip
    return "\n".join(lines) + "\n"


def cell_text(column: str, cell: Estimate | None) -> str:
    """A cell for people: "12.3 % [8.0, 17.1]", "0.954 [0.946, 0.960]", "+1.2 [-0.3, 2.9]" or a dash."""
    if cell is None:
        return "–"
    if column.startswith("auroc"):
        return f"{cell.value:.3f} [{cell.low:.3f}, {cell.high:.3f}]"
    value = f"{100 * cell.value:+.1f}" if column.startswith("accuracy_lost") else f"{100 * cell.value:.1f} %"
    return f"{value} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"


def _range(sizes: Sequence[int]) -> str:
    """One number, or the least and the largest."""
    if not sizes:
        return "–"
    least, most = min(sizes), max(sizes)
    return str(least) if least == most else f"{least}–{most}"
