"""What a scan found, against labels: flagged rates, precision, recall, and which kinds are false alarms."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.estimate import Estimate, proportion
from safevlm.evals.metrics import auroc
from safevlm.labelled import LabelledRow, Layout, Needs, read_table
from safevlm.results.parts import iterate_parts
from safevlm.results.schema import ERROR, ROWS, UNDECIDED
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED, Verdict

logger = logging.getLogger(__name__)

READ = ("sha256", "score", "category", "verdict", "status")
LEVEL, CATEGORY, KIND = "risk_level", "risk_category", "label"
"""The columns that labels are read from where no others are named."""


@dataclass(frozen=True)
class Labels:
    """Labels by the sha256 of the images' bytes.

    Args:
        rows: sha256 -> row of the table; each has a level.
        category: the column of `LabelledRow.extra` that recall is listed by.
        kind: the column that false alarms are listed by.
    """

    rows: Mapping[str, LabelledRow]
    category: str = CATEGORY
    kind: str = KIND


@dataclass(frozen=True)
class Findings:
    """A scan in rates; those that need labels are None or empty without them.

    Args:
        images: rows of the scan; `undecided` and `errors` of them have no score.
        flagged: rows whose verdict is unsafe, of all rows.
        categories: category that the scorer gave -> flagged rows, of all rows.
        labelled: rows whose bytes have a label.
        unmatched: labels whose image is in no row of the scan.
        precision: risky by its label, of the flagged labelled rows.
        recall: flagged, of the labelled rows that are risky; undecided rows count as missed.
        false_alarms: flagged, of the labelled rows that are safe.
        auroc: of the score, over the labelled rows that have one.
        recalls: category of the label -> flagged, of its labelled rows.
        kinds: kind of the label -> flagged, of its safe rows; most false alarms first.
    """

    images: int
    undecided: int
    errors: int
    flagged: Estimate
    categories: Mapping[str, Estimate]
    labelled: int = 0
    unmatched: int = 0
    precision: Estimate | None = None
    recall: Estimate | None = None
    false_alarms: Estimate | None = None
    auroc: Estimate | None = None
    recalls: Mapping[str, Estimate] | None = None
    kinds: Mapping[str, Estimate] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def findings(scan: Path, labels: Labels | None = None) -> Findings:
    """Count a scan's rows, and compare them with labels where there are some.

    Args:
        scan: the folder of a finished scan.
        labels: of images, scanned or not.

    Raises:
        DataError: no scan, or no row has a label.
    """
    rows = list(iterate_parts(scan / ROWS, READ))
    if not rows:
        raise DataError(f"{scan}: holds no rows of a scan; give the folder that `safevlm scan --out` wrote")
    flagged = [row for row in rows if _flagged(row)]
    counts = Counter(row["category"] for row in flagged)
    found = Findings(
        images=len(rows),
        undecided=sum(row["status"] == UNDECIDED for row in rows),
        errors=sum(row["status"] == ERROR for row in rows),
        flagged=proportion(len(flagged), len(rows)),
        categories={name: proportion(n, len(rows)) for name, n in counts.most_common()},
    )
    return found if labels is None else _against(found, rows, labels, scan)


def _against(found: Findings, rows: Iterable[Mapping[str, Any]], labels: Labels, scan: Path) -> Findings:
    pairs = [(row, labels.rows[row["sha256"]]) for row in rows if row["sha256"] in labels.rows]
    if not pairs:
        raise DataError(f"{scan}: no image of the scan has a label; give the labels of the images scanned")
    risky = [(row, label) for row, label in pairs if label.level > 0]
    safe = [(row, label) for row, label in pairs if label.level == 0]
    hits, alarms = sum(_flagged(row) for row, _ in risky), sum(_flagged(row) for row, _ in safe)
    scored = [(row["score"], label.level > 0) for row, label in pairs if row["score"] is not None]
    both = {truth for _, truth in scored} == {True, False}
    return Findings(
        found.images,
        found.undecided,
        found.errors,
        found.flagged,
        found.categories,
        labelled=len(pairs),
        unmatched=len(set(labels.rows) - {row["sha256"] for row, _ in pairs}),
        precision=_rate(hits, hits + alarms),
        recall=_rate(hits, len(risky)),
        false_alarms=_rate(alarms, len(safe)),
        auroc=auroc(*zip(*scored, strict=True)) if both else None,
        recalls=_by(labels.category, risky),
        kinds=_by(labels.kind, safe),
    )


def _flagged(row: Mapping[str, Any]) -> bool:
    return bool(row["verdict"] == Verdict.UNSAFE.value)


def _rate(part: int, whole: int) -> Estimate | None:
    return proportion(part, whole) if whole else None


def _by(column: str, pairs: Iterable[tuple[Mapping[str, Any], LabelledRow]]) -> dict[str, Estimate]:
    """Value of a column -> the rate of its rows that are flagged, most flagged rows first; empty without it."""
    all_, hit = Counter[str](), Counter[str]()
    for row, label in pairs:
        if name := label.extra.get(column):
            all_[name] += 1
            hit[name] += _flagged(row)
    return {name: proportion(n, all_[name]) for name, n in hit.most_common()}


def read_labels(
    path: Path, taxonomy: Taxonomy, *, level: str = LEVEL, category: str = CATEGORY, kind: str = KIND
) -> Labels:
    """Read the labels of images by their sha256; images are hashed and not decoded.

    Args:
        path: a table of labelled images, in any form that training reads.
        taxonomy: whose levels the labels name; categories and kinds may have any names.
        level: the column of levels.
        category: the column of categories.
        kind: the column of finer kinds.

    A row without an image or a level labels nothing; how many there are is logged. Of several images in a
    row the first is labelled.

    Raises:
        DataError: no such file or column, a bad row (file, row, column and reason), no row with an image and
            a level, or one image with two labels that differ in level or category.
    """
    layout = Layout(
        level, tuple(dict.fromkeys((CATEGORY, category, kind))), first_image=True, labels_alone=True
    )
    rows = read_table(path, taxonomy, needs=Needs(image=False, decoded=False), layout=layout)
    for column in {category, kind} - {CATEGORY, KIND}:
        if not any(column in row.extra for row in rows):
            raise DataError(f"{path}: has no column {column!r} with values; name another")
    labelled = [row for row in rows if row.key and row.level != IGNORED]
    if not labelled:
        raise DataError(f"{path}: no row has an image and a level in column {level!r}; name another column")
    if missing := len(rows) - len(labelled):
        logger.warning("%s: %d rows have no image or no level, and label nothing", path, missing)
    found: dict[str, LabelledRow] = {}
    for row in labelled:
        other = found.setdefault(row.key, row)
        first, second = (f"{taxonomy.levels[r.level]}, {r.extra.get(category)}" for r in (other, row))
        if first != second:
            raise DataError(
                f"{row.where} is labelled {second}, the same image in {other.where} {first}; correct one of them"
            )
    return Labels(found, category, kind)


def to_markdown(table: Mapping[str, Findings], *, most: int = 8) -> str:
    """A Markdown table with a scan a column, and the kinds that are flagged most though they are safe."""
    lines = [f"| | {' | '.join(table)} |", "|---|" + "--:|" * len(table)]
    columns = list(table.values())

    def line(name: str, cells: Iterable[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    line("images", (f"{f.images:,}" for f in columns))
    line("errors, undecided", (f"{f.errors}, {f.undecided}" for f in columns))
    line("flagged", (_percent(f.flagged) for f in columns))
    for name in dict.fromkeys(name for f in columns for name in f.categories):
        line(f"flagged as {name}", (_percent(f.categories.get(name)) for f in columns))
    line("with a label", (f"{f.labelled:,}" for f in columns))
    if any(f.unmatched for f in columns):
        line("labels of no scanned image", (f"{f.unmatched:,}" for f in columns))
    line("precision", (_percent(f.precision, counts=True) for f in columns))
    line("recall", (_percent(f.recall, counts=True) for f in columns))
    for name in dict.fromkeys(name for f in columns for name in f.recalls or {}):
        line(f"recall: {name}", (_percent((f.recalls or {}).get(name), counts=True) for f in columns))
    line("safe images flagged", (_percent(f.false_alarms, counts=True) for f in columns))
    line(
        "AUROC",
        (
            "–" if f.auroc is None else f"{f.auroc.value:.3f} [{f.auroc.low:.3f}, {f.auroc.high:.3f}]"
            for f in columns
        ),
    )
    for name, f in table.items():
        if f.kinds:
            shown = [f"{kind} {round(e.value * e.n)} of {e.n}" for kind, e in list(f.kinds.items())[:most]]
            lines += ["", f"Safe kinds flagged most, {name}: {', '.join(shown)}."]
    return (
        "\n".join(
            [*lines, "", "In brackets: 95 % intervals (Wilson; AUROC: DeLong); –: no labels or none flagged."]
        )
        + "\n"
    )


def _percent(cell: Estimate | None, *, counts: bool = False) -> str:
    if cell is None:
        return "–"
    text = f"{100 * cell.value:.1f} % [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
    return f"{text} of {cell.n:,}" if counts else text
