"""Scans: every picture of a source gets a row."""

from safevlm.scan.local import ScanCounts, scan
from safevlm.scan.output import COLUMNS, ScanSummary
from safevlm.scan.worker import ScanWorker, Scorer

__all__ = ["COLUMNS", "ScanCounts", "ScanSummary", "ScanWorker", "Scorer", "scan"]
