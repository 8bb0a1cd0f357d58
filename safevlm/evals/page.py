"""An evaluation on labelled images as a table for people, and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from safevlm.data import read_image
from safevlm.errors import ImageError
from safevlm.estimate import Estimate
from safevlm.evals.data import CURVE_POINTS, DataEvaluation, Measures
from safevlm.evals.scored import ScoredImage
from safevlm.printable import shortened
from safevlm.report import Chart, Dot, Finding, Gallery, write_evaluation

HEADINGS = ("risky images", "AUROC", "AP", "recall", "at 1 % FP", "at 5 % FP", "named")
"""Of `table_rows`; `KEY` says what they are."""
KEY = (
    "Below a category: its risky images / all safe ones. AP: average precision. recall: the verdict unsafe, of the risky "
    "images; at 1 and 5 % FP: with the threshold that flags so many of the safe images. named: the category is right, "
    "where the verdict is unsafe. Below a value: its 95 % interval."
)
SHOWN = 60
"""Images of a gallery, at most: a page then has about a megabyte of them."""
THUMBNAIL = 256
"""Pixels of the longer side."""
PROMPT = 300
"""Characters of a prompt below an image."""


def table_rows(found: DataEvaluation) -> list[list[tuple[str, str]]]:
    """Rows of the table: all risky images, then each category; a cell is a value and its interval."""
    rows = {"all": found.whole, **found.categories}
    return [[(name, f"{one.risky} / {one.safe}"), *_cells(one)] for name, one in rows.items()]


def _cells(one: Measures) -> list[tuple[str, str]]:
    at = list((one.at or {}).values())
    return [
        _number(one.auroc),
        _number(one.average_precision),
        percent(one.recall),
        *(percent(point.recall) for point in at),
        *[("–", "")] * (2 - len(at)),
        percent(one.named),
    ]


def _number(cell: Estimate | None) -> tuple[str, str]:
    return ("–", "") if cell is None else (f"{cell.value:.3f}", f"{cell.low:.3f}–{cell.high:.3f}")


def percent(cell: Estimate | None) -> tuple[str, str]:
    """A share in percent and its interval; a dash for none."""
    if cell is None:
        return "–", ""
    return f"{100 * cell.value:.1f} %", f"{100 * cell.low:.1f}–{100 * cell.high:.1f}"


def summary_lines(found: DataEvaluation) -> dict[str, str]:
    """What the table does not tell, in words: name -> value."""
    lines = {
        "safe images flagged": _of(found.false_alarms),
        "precision": _of(found.precision),
    }
    for rate, point in (found.whole.at or {}).items():
        if point.threshold is None:
            told = f"none: the highest score is that of more than {100 * rate:g} % of the safe images"
        else:
            told = f"score >= {point.threshold:.4g} flags {_of(point.false_positives)} safe images"
        lines[f"threshold at {100 * rate:g} % false positives"] = told
    if found.reliability is not None:
        kind = "calibrated scores" if found.calibrated else "scores, which are not calibrated"
        error = found.reliability.error
        told = f"{error.value:.3f} [{error.low:.3f}, {error.high:.3f}] on {error.n} {kind}"
        lines["expected calibration error"] = told
    lines["undecided"] = (
        f"{found.undecided} of {found.images} images, never safe, and missed where they are risky"
    )
    return lines


def _of(cell: Estimate | None) -> str:
    value, interval = percent(cell)
    return value if cell is None else f"{value} [{interval}] of {cell.n}"


def write_page(found: DataEvaluation, path: str | Path, facts: Mapping[str, Any]) -> Path:
    """Write the evaluation as one HTML page with curves, false alarms and misses.

    Args:
        found: what was measured.
        path: the HTML file.
        facts: label -> value: data, model, policy.

    Raises:
        MissingExtraError: jinja2 is not installed.
        DataError: the file cannot be written.
    """
    return write_evaluation(
        path,
        title="Evaluation on labelled images",
        facts={**facts, **{name.capitalize(): told for name, told in summary_lines(found).items()}},
        key=KEY,
        headings=HEADINGS,
        rows=table_rows(found),
        charts=_charts(found),
        histogram=() if found.reliability is None else found.reliability.histogram,
        galleries=[
            _gallery("False alarms", "labelled safe and found unsafe", "highest", found.alarms),
            _gallery("Misses", "labelled risky and not found unsafe", "lowest", found.misses),
        ],
    )


def _charts(found: DataEvaluation) -> list[Chart]:
    measured = {name: m.curves for name, m in {"all": found.whole, **found.categories}.items() if m.curves}
    charts = []
    if measured:
        points = (found.whole.at or {}).items()
        charts = [
            Chart(
                "ROC",
                "false positives, of the safe images",
                "recall",
                {name: curves.roc(CURVE_POINTS) for name, curves in measured.items()},
                [
                    Dot(p.false_positives.value, p.recall.value, p.recall.low, p.recall.high, f"{100 * rate:g} % false positives")
                    for rate, p in points
                ],
                diagonal=True,
            ),
            Chart(
                "Precision and recall",
                "recall",
                "precision",
                {name: curves.precision_recall(CURVE_POINTS) for name, curves in measured.items()},
            ),
        ]  # fmt: skip
    if found.reliability is not None:
        dots = [
            Dot(one.score, one.risky.value, one.risky.low, one.risky.high, f"{_of(one.risky)} images are risky")
            for one in found.reliability.bins
        ]  # fmt: skip
        charts.append(Chart("Reliability", "mean score", "share of risky images", {}, dots, diagonal=True))
    return charts


def _gallery(title: str, what: str, first: str, images: Sequence[ScoredImage]) -> Gallery:
    findings = []
    for one in images[:SHOWN]:
        note = f"labelled {one.category or ('risky' if one.risky else 'safe')}"
        if one.prompt:
            note += f": {shortened(' '.join(one.prompt.split()), PROMPT)}"
        findings.append(Finding(one.name, _picture(one), one.found, note))
    count = f"{len(images)} images" if len(images) <= SHOWN else f"The first {SHOWN} of {len(images)} images"
    return Gallery(title, f"{count} {what}, {first} score first.", findings)


def _picture(one: ScoredImage) -> Image.Image | None:
    """A small copy; None where it cannot be read, so that it is undecided and its card has the reason."""
    try:
        picture = read_image(one.image)
    except ImageError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture
