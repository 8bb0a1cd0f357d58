"""Renders the rows of a scan as one HTML page on which a person can review and mark them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import count, islice
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.model_card import UNTRAINED
from safevlm.policy import Policy
from safevlm.report.document import csp_hash, cut, fact, inline_json, resource, write_document
from safevlm.report.listing import ROWS, Listing, read_listing, read_thumbnails
from safevlm.report.overview import Overview, survey
from safevlm.taxonomy import Taxonomy

PAGE_BYTES = 25_000_000
"""Most that a page takes; thumbnails get what the rest leaves."""
FRAME_BYTES = 2_000_000
"""Set aside for everything but the listing: markup, style, script, facts, the table of errors."""
BLOCK = 200  # thumbnails in one data element
SCRIPTS = ("triage_rows.js", "triage_marks.js", "triage_cards.js", "triage.js")
FACT_LENGTH = 500  # characters
SAID = {
    "format", "n", "total", "statuses", "verdicts", "levels", "categories", "failures", "interrupted", "untrained",
}  # fmt: skip
NAMED = {"source", "model", "policy", "policy_sha256"}
"""Keys of a summary, and of mappings in it, that the page says itself."""
FAILURES = 5
"""Failed shards that the page names."""
_GENERATION = re.compile(rb'<meta name="generation" content="([0-9a-f]+)">')
_HEAD_BYTES = 1024  # which the tag is in
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0d\ufeff\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
"""Characters that reorder or hide text, controls, tags and variation selectors (but those of emoji, U+FE0E and U+FE0F)."""


def write_triage(
    rows_folder: Path,
    thumbnails_folder: Path,
    out: Path,
    *,
    taxonomy: Taxonomy,
    policy: Policy,
    source: str,
    summary: Mapping[str, Any],
    generation: str = "",
) -> Path:
    """Write the page: counts, a threshold to move, a gallery with marks, near-duplicates folded.

    Counts are those of all rows. What is listed is bounded (see `listing`), and the page says so. Texts are data
    to the page, never markup; its Content-Security-Policy allows this one script and style, and no request.

    Args:
        rows_folder: holds the scan's `part-*.parquet`, a row per image.
        thumbnails_folder: the same for thumbnails and heatmaps of flagged and undecided rows.
        out: the HTML file; replaced whole or not at all.
        taxonomy: names that a mark may give.
        policy: what the verdicts rest on.
        source: the scan's source, for people; marks carry the source of their row.
        summary: name -> value, shown as facts.
        generation: what tells these rows from others, for `generation_of`.

    Returns:
        `out`.

    Raises:
        DataError: no rows, broken part files, or the page cannot be written.
        MissingExtraError: jinja2 or pyarrow is not installed.
    """
    overview = _surveyed(rows_folder, policy)
    listing = read_listing(rows_folder, overview, taxonomy)
    context = {
        "generation": generation,
        "source": _visible(source),
        "untrained": UNTRAINED if summary.get("untrained") else "",
        "rows_folder": rows_folder.name,
        "blocks": _blocks(_scan(overview, policy, taxonomy, source, rows_folder), listing, thumbnails_folder),
        **_style_and_script(),
        **_counts(overview, policy, taxonomy, summary),
        **_failures(listing, summary),
    }
    return write_document(resource("triage.html"), out, context)


def _surveyed(rows_folder: Path, policy: Policy) -> Overview:
    """The counts of all rows. Raises DataError where there are none."""
    thresholds = (policy.threshold, *policy.thresholds.values())
    overview = survey(rows_folder, thresholds=thresholds, limit=ROWS)
    if not overview.total:
        raise DataError(f"{rows_folder}: holds no rows; scan something first")
    return overview


def _counts(
    overview: Overview, policy: Policy, taxonomy: Taxonomy, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """What the head of the page tells of all rows."""
    return {
        "overview": overview,
        "levels": _bars(overview.counts["level"], taxonomy.levels),
        "categories": _bars(overview.counts["category"], taxonomy.category_names),
        "facts": [(name, _visible(value)) for name, value in _facts(overview, policy, summary)],
    }


def _style_and_script() -> dict[str, str]:
    """The page's style and script, each with the hash by which its Content-Security-Policy admits it."""
    style, script = resource("triage.css"), _script()
    return {
        "style": style,
        "style_hash": csp_hash(style),
        "script": script,
        "script_hash": csp_hash(script),
    }


def _failures(listing: Listing, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page tells of shards that broke off, of images that could not be read, and of an interrupted scan."""
    failures: Mapping[str, str] = summary.get("failures", {})  # a summary names some of the failed shards
    return {
        "interrupted": bool(summary.get("interrupted")),
        "failed": max(len(failures), summary.get("shards", {}).get("failed", 0)),
        "failures": [(_visible(name), _visible(why)) for name, why in islice(failures.items(), FAILURES)],
        "errors": [{name: _visible(value) for name, value in row.items()} for row in listing.errors],
    }


def generation_of(page: Path) -> str:
    """The generation of the rows that a page was written from; empty where it tells none."""
    with page.open("rb") as file:
        found = _GENERATION.search(file.read(_HEAD_BYTES))
    return found[1].decode() if found else ""


def _script() -> str:
    """The script's files in one function, so that they share names with each other and nothing else."""
    return "(() => {\n" + "\n".join(resource(name) for name in SCRIPTS) + "\n})();\n"


def _bars(counts: Mapping[str, int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Name, count and width (0 to 100) of each; those that no row has are there with 0."""
    most = max(1, *counts.values(), 1)
    return [
        {"name": name, "count": counts.get(name, 0), "width": round(100 * counts.get(name, 0) / most, 2)}
        for name in names
    ]


def _facts(overview: Overview, policy: Policy, summary: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "Model", summary.get("model") or ", ".join(overview.counts["model"])
    yield "Policy", policy.sha256[:16]
    yield ("Rule", policy.rule) if policy.rule == "argmax" else ("Threshold", policy.threshold)
    if policy.thresholds:
        yield "Thresholds of their own", dict(policy.thresholds)
    if policy.off:
        yield "Categories let through", ", ".join(sorted(policy.off))
    yield "Page written", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    for name, value in summary.items():
        if isinstance(value, Mapping):
            value = {key: item for key, item in value.items() if key not in NAMED}
        if name not in SAID | NAMED and value not in (None, {}, ""):
            yield name.replace("_", " ").capitalize(), value


def _visible(value: Any) -> str:
    """A value as the page shows it, with � for every character that hides or reorders text."""
    return cut(INVISIBLE.sub("\ufffd", fact(value)), FACT_LENGTH)


def _scan(
    overview: Overview, policy: Policy, taxonomy: Taxonomy, source: str, rows_folder: Path
) -> dict[str, Any]:
    """What the script knows of the scan as a whole."""
    identity = json.dumps([source, sorted(overview.counts["model"]), policy.sha256])
    return {
        "key": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "sources": list(overview.counts["source"]),
        "levels": list(taxonomy.levels),
        "categories": list(taxonomy.category_names),
        "clean": taxonomy.clean,
        "threshold": policy.threshold,
        "edges": overview.edges,
        "bins": overview.bins,
        "total": overview.total,
        "counts": {
            "flagged": overview.flagged,
            "safe": overview.safe,
            "undecided": overview.undecided,
            "errors": overview.errors,
        },
        "rows_folder": rows_folder.name,
    }


def _blocks(scan: Mapping[str, Any], listing: Listing, thumbnails: Path) -> Iterator[tuple[str, str]]:
    """The data elements of the page: id and JSON, one after the other so that few are held at a time."""
    left = PAGE_BYTES - FRAME_BYTES
    for name, value in (
        ("scan", scan),
        ("shards", listing.shards),
        ("ids", listing.ids),
        ("captions", listing.captions),
        ("reasons", listing.reasons),
        ("writings", listing.writings),
        ("columns", listing.columns()),
    ):
        text = inline_json(value)
        left -= len(text)
        yield name, text
    rows = read_thumbnails(thumbnails, listing, budget=left)
    for block in count():
        items = list(islice(rows, BLOCK))
        yield f"thumbnails-{block}", inline_json(items)
        if not items:
            return
