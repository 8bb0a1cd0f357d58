"""What a scan found, against labels: flagged shares, precision, recall, and which kinds are false alarms."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safevlm.data import open_source
from safevlm.errors import DataError
from safevlm.evals.metrics import Estimate, auroc, proportion
from safevlm.results.parts import iterate_parts, read_column
from safevlm.results.schema import ROWS
from safevlm.taxonomy import Taxonomy
from safevlm.types import Verdict

logger = logging.getLogger(__name__)

READ = ("sha256", "score", "category", "verdict", "status")


@dataclass(frozen=True)
class Label:
    """What a labelled image is: its level, its category, and a finer kind for the list of false alarms."""

    level: str
    category: str
    kind: str


@dataclass(frozen=True)
class Findings:
    """A scan in shares; those that need labels are None or empty without them.

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


def findings(scan: Path, taxonomy: Taxonomy, labels: Mapping[str, Label] | None = None) -> Findings:
    """Count a scan's rows, and hold them against labels where there are some.

    Args:
        scan: the folder of a finished scan.
        taxonomy: the scan's model's, whose first level is the safe one.
        labels: sha256 of an image's bytes -> its label.

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
        undecided=sum(row["status"] == "undecided" for row in rows),
        errors=sum(row["status"] == "error" for row in rows),
        flagged=proportion(len(flagged), len(rows)),
        categories={name: proportion(n, len(rows)) for name, n in counts.most_common()},
    )
    return found if labels is None else _against(found, rows, labels, taxonomy, scan)


def _against(
    found: Findings,
    rows: Iterable[Mapping[str, Any]],
    labels: Mapping[str, Label],
    taxonomy: Taxonomy,
    scan: Path,
) -> Findings:
    pairs = [(row, labels[row["sha256"]]) for row in rows if row["sha256"] in labels]
    if not pairs:
        raise DataError(f"{scan}: no image of the scan has a label; give the labels of the images scanned")
    unknown = {label.level for _, label in pairs} - set(taxonomy.levels)
    if unknown:
        raise DataError(
            f"labels name levels {sorted(unknown)}; the scan's model knows {list(taxonomy.levels)}"
        )
    risky = [(row, label) for row, label in pairs if label.level != taxonomy.safe_level]
    safe = [(row, label) for row, label in pairs if label.level == taxonomy.safe_level]
    hits, alarms = sum(_flagged(row) for row, _ in risky), sum(_flagged(row) for row, _ in safe)
    scored = [
        (row["score"], label.level != taxonomy.safe_level) for row, label in pairs if row["score"] is not None
    ]
    both = {truth for _, truth in scored} == {True, False}
    return Findings(
        found.images,
        found.undecided,
        found.errors,
        found.flagged,
        found.categories,
        labelled=len(pairs),
        unmatched=len(set(labels) - {row["sha256"] for row, _ in pairs}),
        precision=_share(hits, hits + alarms),
        recall=_share(hits, len(risky)),
        false_alarms=_share(alarms, len(safe)),
        auroc=auroc(*zip(*scored, strict=True)) if both else None,
        recalls=_by((label.category, row) for row, label in risky),
        kinds=_by((label.kind, row) for row, label in safe),
    )


def _flagged(row: Mapping[str, Any]) -> bool:
    return bool(row["verdict"] == Verdict.UNSAFE.value)


def _share(part: int, whole: int) -> Estimate | None:
    return proportion(part, whole) if whole else None


def _by(named: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Estimate]:
    """Name -> the share of its rows that are flagged, most flagged rows first."""
    all_, hit = Counter[str](), Counter[str]()
    for name, row in named:
        all_[name] += 1
        hit[name] += _flagged(row)
    return {name: proportion(n, all_[name]) for name, n in hit.most_common()}


def read_labels(
    path: Path, *, level: str = "risk_level", category: str = "risk_category", kind: str = "label"
) -> dict[str, Label]:
    """Labels by the sha256 of the images that stand beside them.

    Args:
        path: a Parquet file of images with a column for each of the names that follow.

    A row without an image labels nothing; how many there are is logged. Of several images in a row the
    first is labelled.

    Raises:
        DataError: no such file or column, a row with an empty list of images, or one image with two labels
            that differ in level or category.
    """
    source = open_source(f"parquet:{path}")
    names = [[str(value) for value in read_column(path, column)] for column in (level, category, kind)]
    items = (item for shard in source.shards() for item in source.read(shard))
    digests = list(_digests(item.data for item in items if item.number == 0))
    if len(digests) != len(names[0]):
        raise DataError(
            f"{path}: has {len(names[0])} rows, {len(digests)} of them with images; use null for a row without"
        )
    if missing := digests.count(None):
        logger.warning("%s: %d rows have no image that can be read, and label nothing", path, missing)
    found: dict[str, Label] = {}
    for number, (digest, *values) in enumerate(zip(digests, *names, strict=True)):
        if digest is None:
            continue
        label = Label(*values)
        other = found.setdefault(digest, label)
        if (other.level, other.category) != (label.level, label.category):
            raise DataError(
                f"{path}: row {number} is labelled {label.level}, {label.category}, the same image before it "
                f"{other.level}, {other.category}; mend one of them"
            )
    return found


def _digests(images: Iterable[bytes | None]) -> Iterator[str | None]:
    return (None if data is None else hashlib.sha256(data).hexdigest() for data in images)


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
