"""What was measured, on disk: JSON for machines, and the plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safevlm.files import write_bytes
from safevlm.report import bar_plot

from .measures import Measured
from .table import category_bars

RESULTS, PLOT = "concepts.json", "concepts.png"


def write_measured(folder: Path, found: Sequence[Measured]) -> None:
    """Write `concepts.json`, a list with `Measured.to_dict` of each judge, and `concepts.png`, the first judge's bars.

    Raises:
        OSError: the folder cannot be written to.
    """
    results = [measured.to_dict() for measured in found]
    write_bytes(folder / RESULTS, json.dumps(results, indent=1).encode())
    title = f"{found[0].target}; judge: {found[0].judge}"
    write_bytes(folder / PLOT, bar_plot(category_bars(found[0]), title=title))
