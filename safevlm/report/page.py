"""Renders findings as one self-contained HTML page without scripts and requests."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from safevlm.report.document import csp_hash, fact, resource, write_document
from safevlm.report.overlay import overlay
from safevlm.types import Action, RiskAssessment, Verdict

THUMBNAIL = 256  # pixels, the longer side
BINS = 20  # of the histogram, 0.05 each


@dataclass(frozen=True)
class Finding:
    """One image on the page.

    Args:
        id: shown as text, whatever it holds.
        thumbnail: the image, any size (shrunk to 256 px); None where there is none to show.
        assessment: with a heatmap where one is to be seen.
        note: a line below the assessment.
    """

    id: str
    thumbnail: Image.Image | None
    assessment: RiskAssessment
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """One request, answered without and with the guard.

    Args:
        image: what the request is about.
        prompt: what it asks.
        unguarded, guarded: the two answers.
        action: what the guard did.
        hint: the hint that it put before the prompt; empty where there is none.
        assessment: what it rests on.
    """

    image: Image.Image
    prompt: str
    unguarded: str
    guarded: str
    action: Action
    hint: str
    assessment: RiskAssessment


def render_page(
    findings: Sequence[Finding],
    path: str | Path,
    *,
    title: str,
    summary: Mapping[str, Any],
    comparisons: Sequence[Comparison] = (),
) -> Path:
    """Write the page: numbers, a histogram of scores, comparisons, and every finding, riskiest first.

    Unsafe images are blurred until the reader points at them, tabs to them or taps them. Every text is
    escaped, and the page's Content-Security-Policy forbids scripts and requests.

    Args:
        findings: at least one, unless there are comparisons.
        path: the HTML file; replaced whole or not at all.
        title: heading of the page.
        summary: label -> value, shown as facts below the tiles (model, seconds, policy hash ...).
        comparisons: shown before the findings.

    Returns:
        The path.

    Raises:
        MissingExtraError: jinja2 is not installed.
        DataError: the file cannot be written.
        ValueError: nothing to show.
    """
    if not findings and not comparisons:
        raise ValueError("the report has neither findings nor comparisons; there is nothing to show")
    counts = Counter(finding.assessment.verdict for finding in findings)
    context = {
        "title": title,
        **page_style(),
        "counts": {verdict.value: counts[verdict] for verdict in Verdict},
        "total": len(findings),
        "facts": [(str(name), fact(value)) for name, value in summary.items()],
        "bars": _histogram(finding.assessment for finding in findings),
        "comparisons": [_comparison(number, item) for number, item in enumerate(comparisons)],
        "cards": [card(item) for item in sorted(findings, key=_order)],
    }
    return write_document(resource("page.html"), Path(path), context)


def page_style(*more: str) -> dict[str, str]:
    """The style of the pages without scripts, and the hash by which their Content-Security-Policy admits it.

    Args:
        more: names of further style sheets.
    """
    style = "\n" + "".join(map(resource, ("page.css", *more)))
    return {"style": style, "style_hash": csp_hash(style)}


def _order(finding: Finding) -> tuple[int, float]:
    """Unsafe by falling score, then undecided, then safe by falling score."""
    rank = {Verdict.UNSAFE: 0, Verdict.UNDECIDED: 1, Verdict.SAFE: 2}[finding.assessment.verdict]
    return rank, -(finding.assessment.score or 0.0)


def card(finding: Finding) -> dict[str, Any]:
    """What the template shows of a finding."""
    image = finding.thumbnail
    folder, slash, name = finding.id.rpartition("/")
    return {
        "id": finding.id,
        "folder": folder + slash,
        "name": name,
        "note": finding.note,
        "image": _data_uri(image) if image else "",
        "heatmap": _heatmap(image, finding.assessment) if image else "",
        **_reading(finding.assessment),
    }


def _comparison(number: int, item: Comparison) -> dict[str, Any]:
    return {
        "number": number,
        "image": _data_uri(item.image),
        "heatmap": _heatmap(item.image, item.assessment),
        "prompt": item.prompt,
        "unguarded": item.unguarded,
        "guarded": item.guarded,
        "action": item.action.value,
        "hint": item.hint,
        **_reading(item.assessment),
    }


def _reading(assessment: RiskAssessment) -> dict[str, Any]:
    """What the template shows of an assessment; `width` is the score bar's, 0 to 100."""
    score = assessment.score
    if score is not None and not math.isfinite(score):
        score = None
    return {
        "verdict": assessment.verdict.value,
        "score": None if score is None else f"{score:.2f}",
        "width": 0.0 if score is None else round(100 * min(1.0, max(0.0, score)), 1),
        "level": assessment.level,
        "category": assessment.category,
        "calibrated": assessment.calibrated,
        "reason": assessment.reason,
        "read_text": assessment.read_text,
    }


def _histogram(assessments: Iterable[RiskAssessment]) -> list[dict[str, Any]]:
    """Bars of the scores' histogram: counts by verdict, heights in [0, 100] that stack."""
    bins: list[Counter[str]] = [Counter() for _ in range(BINS)]
    for assessment in assessments:
        if assessment.score is not None and math.isfinite(assessment.score):
            number = min(BINS - 1, max(0, int(assessment.score * BINS)))
            bins[number][assessment.verdict.value] += 1
    scale = 100 / max(1, *(found.total() for found in bins))
    return [
        {
            "x": number,
            "count": found.total(),
            "low": f"{number / BINS:.2f}",
            "high": f"{(number + 1) / BINS:.2f}",
            "safe": round(found[Verdict.SAFE.value] * scale, 2),
            "unsafe": round(found[Verdict.UNSAFE.value] * scale, 2),
        }
        for number, found in enumerate(bins)
    ]


def _heatmap(image: Image.Image, assessment: RiskAssessment) -> str:
    if assessment.heatmap is None:
        return ""
    return _data_uri(overlay(_shrunk(image), assessment.heatmap, opacity=0.6))


def _shrunk(image: Image.Image) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return small


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    _shrunk(image).save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
