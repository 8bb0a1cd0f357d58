"""The page that a scan ends with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from safevlm.report.triage import write_triage
from safevlm.scan.ledger import LEDGER, Ledger
from safevlm.scan.output import REPORT, ROWS, THUMBNAILS
from safevlm.scan.summary import ScanSummary


def write_report(out: str | Path, summary: ScanSummary) -> Path:
    """Write `out/report.html` from the rows of a scan, where they are newer than it.

    Raises:
        DataError: the folder holds no rows, or cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    out = Path(out)
    page, ledger_file = out / REPORT, out / LEDGER
    if page.is_file() and page.stat().st_mtime_ns > ledger_file.stat().st_mtime_ns:
        return page
    with closing(Ledger(ledger_file)) as ledger:
        policy = ledger.policy
    return write_triage(
        out / ROWS,
        out / THUMBNAILS,
        page,
        taxonomy=policy.taxonomy,
        policy=policy,
        source=summary.source,
        summary=summary.to_dict(),
    )
