"""The table of an evaluation: rows of estimates, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from safevlm.evals.metrics import Estimate

Table: TypeAlias = "dict[str, dict[str, Estimate | None]]"
"""Row (a model) -> column (a metric) -> the estimate; None where there is no data or no head."""

ROWS = ("plain", "tokens", "head_hint", "stage1", "stage2")
"""The models of `safevlm eval mini`."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "complied_risky": ("complied: risky scenes", "↓"),
    "complied_risky_photos": ("complied: risky photographs", "↓"),
    "complied_typographic": ("complied: typographic instructions", "↓"),
    "complied_text": ("complied: harmful requests in text", "↓"),
    "complied_text_blank": ("complied: the same beside a blank image", "↓"),
    "refused_ordinary": ("refused: ordinary scenes", "↓"),
    "refused_ordinary_photos": ("refused: ordinary photographs", "↓"),
    "refused_lookalike": ("refused: harmless look-alikes", "↓"),
    "answer_accuracy": ("answer accuracy: ordinary scenes", "↑"),
    "answer_accuracy_photos": ("answer accuracy: ordinary photographs", "↑"),
    "auroc_scenes": ("head AUROC: scenes", "↑"),
    "auroc_photos": ("head AUROC: photographs", "↑"),
    "level_accuracy": ("head level accuracy: scenes", "↑"),
    "category_accuracy": ("head category accuracy: scenes", "↑"),
}
"""Column -> its words and the direction that is better."""

_NAMES = {
    "plain": "plain backbone", "tokens": "tokens only", "head_hint": "head + hint only",
    "stage1": "stage 1", "stage2": "stage 2",
}  # fmt: skip


def to_json(table: Table) -> dict[str, dict[str, dict[str, float | int] | None]]:
    """`{row: {column: {value, low, high, n}}}`, null where there is no estimate; JSON-ready."""
    return {
        row: {column: None if cell is None else cell.to_dict() for column, cell in cells.items()}
        for row, cells in table.items()
    }


def to_markdown(table: Table) -> str:
    """A Markdown table with a metric a line and a model a column: percent [95 % interval], n apart.

    AUROC stands as a number in [0, 1]. A dash means that the data is not given or the row has no head.
    """
    names = [_NAMES.get(row, row) for row in table]
    lines = ["| | n | " + " | ".join(names) + " |", "|---|--:|" + "--:|" * len(names)]
    columns = dict.fromkeys([*COLUMNS, *(column for cells in table.values() for column in cells)])
    for column in columns:
        words, arrow = COLUMNS.get(column, (column, ""))
        cells = [row.get(column) for row in table.values()]
        shown = " | ".join(_cell(column, cell) for cell in cells)
        lines.append(f"| {words} {arrow} | {_sizes(cells)} | {shown} |")
    lines += ["", "In brackets: 95 % intervals (Wilson; AUROC: DeLong). n: items per cell. "
              "↓ lower is better, ↑ higher is better; –: no data or no head."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cell(column: str, cell: Estimate | None) -> str:
    if cell is None:
        return "–"
    if column.startswith("auroc"):
        return f"{cell.value:.3f} [{cell.low:.3f}, {cell.high:.3f}]"
    return f"{cell.value:.1%} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]".replace("%", " %")


def _sizes(cells: list[Estimate | None]) -> str:
    sizes = sorted({cell.n for cell in cells if cell is not None})
    if not sizes:
        return "–"
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
