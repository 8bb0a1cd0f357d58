"""The page that a scan ends with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from safevlm.report.triage import generation_of, write_triage
from safevlm.results.schema import REPORT, ROWS, THUMBNAILS
from safevlm.scan.ledger import LEDGER, Ledger
from safevlm.scan.lock import locked
from safevlm.scan.summary import ScanSummary


def write_report(out: str | Path, summary: ScanSummary) -> Path:
    """Write `out/report.html` from the rows of a scan, unless the page there was made from the same ones.

    Raises:
        DataError: the folder holds no rows, cannot be written, or another process writes there.
        MissingExtraError: jinja2 is not installed.
    """
    out = Path(out)
    page, ledger_file = out / REPORT, out / LEDGER
    with locked(out):
        with closing(Ledger(ledger_file)) as ledger:
            policy, generation = ledger.policy, ledger.generation
        if page.is_file() and generation_of(page) == generation:
            return page
        return write_triage(
            out / ROWS,
            out / THUMBNAILS,
            page,
            taxonomy=policy.taxonomy,
            policy=policy,
            source=summary.source,
            summary=summary.to_dict(),
            generation=generation,
        )
