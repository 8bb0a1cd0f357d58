"""The summary of a scan, as it stands in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.results.schema import SUMMARY


def read_summary(folder: Path) -> dict[str, Any]:
    """The values of a scan's `summary.json`; raises DataError where there is none, or another file."""
    try:
        found = json.loads((folder / SUMMARY).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / SUMMARY}: cannot be read ({error}); give the folder that `safevlm scan --out` wrote"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("n"), int):
        raise DataError(f"{folder / SUMMARY}: is not the summary of a scan; scan again")
    return found
