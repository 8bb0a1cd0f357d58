"""Renders an evaluation as one self-contained HTML page: a table, curves, and the images that were judged wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safevlm.report.chart import Chart
from safevlm.report.document import fact, resource, write_document
from safevlm.report.page import Finding, card, page_style

Cell = tuple[str, str]
"""A value and its interval, in words; either may be empty."""


@dataclass(frozen=True)
class Gallery:
    """Images under a heading; `lead` says what they are, and how many there are in all."""

    title: str
    lead: str
    findings: Sequence[Finding]


def write_evaluation(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    key: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    charts: Sequence[Chart] = (),
    histogram: Sequence[tuple[int, int]] = (),
    galleries: Sequence[Gallery] = (),
) -> Path:
    """Write the page. Every text is escaped, and the page's Content-Security-Policy forbids scripts and requests.

    Args:
        path: the HTML file; replaced whole or not at all.
        title: heading of the page.
        facts: label -> value: data, model, policy ...
        key: what the columns of the table are.
        headings, rows: of the table; a cell for each heading.
        charts: in the unit square.
        histogram: (safe, risky) images per bin of equal width in [0, 1].
        galleries: those without images are left out.

    Returns:
        The path.

    Raises:
        MissingExtraError: jinja2 is not installed.
        DataError: the file cannot be written.
    """
    context = {
        **page_style("evaluation.css"),
        "title": title,
        "facts": [(name, fact(value)) for name, value in facts.items()],
        "key": key,
        "headings": headings,
        "rows": rows,
        "charts": [chart.drawing() for chart in charts],
        "bars": _bars(histogram),
        "galleries": [
            {"title": one.title, "lead": one.lead, "cards": map(card, one.findings)}
            for one in galleries
            if one.findings
        ],
    }
    return write_document(resource("evaluation.html"), Path(path), context)


def _bars(histogram: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Heights in [0, 100] that stack."""
    scale = 100 / max((safe + risky for safe, risky in histogram), default=1)
    return [
        {
            "x": number,
            "safe": round(safe * scale, 2),
            "unsafe": round(risky * scale, 2),
            "text": f"{number / len(histogram):g} to {(number + 1) / len(histogram):g}: {safe} safe, {risky} risky",
        }
        for number, (safe, risky) in enumerate(histogram)
    ]
