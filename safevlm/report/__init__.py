"""Reports: one self-contained HTML page of findings, or of the rows of a scan."""

from safevlm.report.bar_plot import bar_plot
from safevlm.report.layer_plot import layer_plot
from safevlm.report.overlay import overlay
from safevlm.report.page import Comparison, Finding, render_page
from safevlm.report.triage import write_triage

__all__ = ["Comparison", "Finding", "bar_plot", "layer_plot", "overlay", "render_page", "write_triage"]
