"""Reports: one self-contained HTML page of findings, of an evaluation, or of the rows of a scan."""

from safevlm.report.bar_plot import bar_plot
from safevlm.report.chart import Chart, Dot
from safevlm.report.evaluation import Gallery, write_evaluation
from safevlm.report.layer_plot import layer_plot
from safevlm.report.line_plot import line_plot
from safevlm.report.overlay import overlay
from safevlm.report.page import Comparison, Finding, render_page
from safevlm.report.score_plot import histogram_plot, reliability_plot
from safevlm.report.triage import write_triage

__all__ = [
    "Chart",
    "Comparison",
    "Dot",
    "Finding",
    "Gallery",
    "bar_plot",
    "histogram_plot",
    "layer_plot",
    "line_plot",
    "overlay",
    "reliability_plot",
    "render_page",
    "write_evaluation",
    "write_triage",
]
