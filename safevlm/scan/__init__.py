"""Scans: every image of a source gets a row."""

from safevlm.results.schema import COLUMNS, THUMBNAIL_COLUMNS
from safevlm.scan.apply import apply_policy, scanned_policy
from safevlm.scan.export import export
from safevlm.scan.ledger import LEDGER
from safevlm.scan.merge import merge
from safevlm.scan.model import Checkpoint
from safevlm.scan.options import ScanOptions
from safevlm.scan.run import scan
from safevlm.scan.summary import ScanCounts, ScanSummary, versions
from safevlm.scan.triage import write_report
from safevlm.scan.view import View

__all__ = [
    "COLUMNS",
    "LEDGER",
    "THUMBNAIL_COLUMNS",
    "Checkpoint",
    "ScanCounts",
    "ScanOptions",
    "ScanSummary",
    "View",
    "apply_policy",
    "export",
    "merge",
    "scan",
    "scanned_policy",
    "versions",
    "write_report",
]
