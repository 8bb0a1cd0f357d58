"""Findings -> one page."""

from safevlm.report.overlay import overlay
from safevlm.report.page import Comparison, Finding, render_page

__all__ = ["Comparison", "Finding", "overlay", "render_page"]
