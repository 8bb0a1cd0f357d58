"""The page that a scan ends with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from safevlm.report.triage import write_triage
from safevlm.scan.ledger import LEDGER, Ledger
from safevlm.scan.output import REPORT, ROWS, THUMBNAILS
from safevlm.scan.summary import ScanSummary


def write_report(out: str | Path, summary: ScanSummary) -> Path:
    """Write `out/report.html` from the rows of a scan.

    Raises:
        DataError: the folder holds no rows, or cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    out = Path(out)
    with closing(Ledger(out / LEDGER)) as ledger:
        policy = ledger.policy
    return write_triage(
        out / ROWS,
        out / THUMBNAILS,
        out / REPORT,
        taxonomy=policy.taxonomy,
        policy=policy,
        source=summary.source,
        summary=summary.to_dict(),
    )
