"""What was measured, for people: tables in Markdown, and the bars of the plot."""

from __future__ import annotations

from collections.abc import Sequence

from safevlm.evals.clusters import ClusteredEstimate

from .measures import COLUMNS, GAPS, Cell, Measured, Row
from .probes import IMAGE, PERCEPTION, TEXT, TEXT_WHITE
from .traits import GENERAL, NAMED, TRAITS
from .traits import WORDS as LENGTH

WORDS = {
    "perception": "perception", "image": "image alignment", "text": "text alignment", "text_white": "text + white image",
    "gap": "gap: text - image", "gap_white": "gap: text + white - image", "context": "contexts",
    "diversity": "1 - Self-BLEU", "words": "words", "named": "names it", "general": "general accuracy",
}  # fmt: skip
"""Column -> its words."""
SHARES = (NAMED, GENERAL)
"""Traits that are shares."""
BARS = {"perception": PERCEPTION, "text + white image": TEXT_WHITE, "image": IMAGE}
"""Bars of the plot: name -> column."""


def concepts_markdown(found: Sequence[Measured], *, concepts: bool = False) -> str:
    """A Markdown table for each judge: overall and category rows, and those of the concepts where asked for.

    A judged cell is the share with N/A dropped and its 95 % interval, the share with N/A counted wrong, the share of N/A,
    and n; the others are a value, its interval and n.
    """
    lines = []
    for measured in found:
        columns = columns_of(measured)
        lines += [
            f"**{_plain(measured.target)}** on {_plain(measured.concepts)}, judge: {_plain(measured.judge)}", "",
            "| | " + " | ".join(WORDS[column] for column in columns) + " |", "|---|" + "--:|" * len(columns),
        ]  # fmt: skip
        for row in measured.rows:
            if concepts or row.level != "concept":
                cells = (row_cell(row, column) for column in columns)
                lines.append(f"| {_plain(label(row))} | " + " | ".join(cells) + " |")
        lines.append("")
    lines.append(
        "A cell: share right over the answers that the judge could read [95 % interval, by bootstrap over concepts, never narrower "
        "than that of independent answers]; the same over all answers, N/A counted wrong; share of N/A; n. Gaps are in points. "
        "1 - Self-BLEU, words (the mean length) and names it (share that names the concept) are of the answers on images, by no judge."
    )
    return "\n".join(lines) + "\n"


def label(row: Row) -> str:
    """A row's name; of a category or concept with "harmless" where its images are."""
    return f"{row.name} (harmless)" if row.level != "all" and row.unsafe is False else row.name


def columns_of(measured: Measured) -> list[str]:
    """The columns of `COLUMNS` and `TRAITS` that a row has."""
    return [
        column
        for column in (*COLUMNS, *TRAITS)
        if any(column in row.cells or column in row.traits for row in measured.rows)
    ]


def row_cell(row: Row, column: str) -> str:
    """A cell as text: "36.5 % [30.1, 43.0]; 33.2 %; N/A 9.1 %; n 200" where it is judged, a gap as "+55.0 [...]"; "0.221 [0.180,
    0.260]; n 200" for what is no share; or a dash."""
    if column in row.cells:
        return _judged_cell(column, row.cells[column])
    return _trait_cell(column, row.traits[column]) if column in row.traits else "–"


def _trait_cell(column: str, found: ClusteredEstimate) -> str:
    numbers = found.value, found.low, found.high
    if column in SHARES:
        value, low, high = (f"{100 * number:.1f}" for number in numbers)
        return f"{value} % [{low}, {high}]; n {found.n}"
    digits = 1 if column == LENGTH else 3
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]; n {found.n}"


def _judged_cell(column: str, cell: Cell) -> str:
    sign, unit = ("+", "") if column in GAPS else ("", " %")
    read = "–"
    if cell.dropped is not None:
        read = f"{100 * cell.dropped.value:{sign}.1f}{unit} [{100 * cell.dropped.low:.1f}, {100 * cell.dropped.high:.1f}]"
    failed = f", {cell.failed} failed" if cell.failed else ""
    return f"{read}; {100 * cell.strict.value:{sign}.1f}{unit}; N/A {100 * cell.na.value:.1f} %{failed}; n {cell.strict.n}"


def category_bars(measured: Measured) -> dict[str, dict[str, tuple[float, float, float] | None]]:
    """For `safevlm.report.bar_plot`: category -> bar -> (share with N/A dropped, low, high), None where none was read."""
    bars = dict(BARS)
    if not any(TEXT_WHITE in row.cells for row in measured.rows):
        bars = {"perception": PERCEPTION, "text": TEXT, "image": IMAGE}
    groups: dict[str, dict[str, tuple[float, float, float] | None]] = {}
    for row in measured.rows:
        if row.level == "category":
            groups[label(row)] = {name: _bar(row.cells.get(column)) for name, column in bars.items()}
    return groups


def _bar(cell: Cell | None) -> tuple[float, float, float] | None:
    if cell is None or cell.dropped is None:
        return None
    return cell.dropped.value, cell.dropped.low, cell.dropped.high


def _plain(text: str) -> str:
    """Names from data sets, without what Markdown and HTML would obey."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    for character, escaped in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("`", "\\`"),
        ("[", "\\["),
        ("]", "\\]"),
    ):
        kept = kept.replace(character, escaped)
    return kept
