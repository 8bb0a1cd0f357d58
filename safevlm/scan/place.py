"""Where a scan may write: not into its own source."""

from __future__ import annotations

import os
import re
from pathlib import Path

from safevlm.errors import DataError, MissingExtraError

_WRITTEN = ("rows/part-00000.parquet", "thumbnails/part-00000.parquet")


def refuse_inside(uri: str, out: Path) -> None:
    """Raise DataError where what a scan writes to `out` would count as its source.

    Args:
        uri: of the source; one that is not on this machine holds no local folder.
        out: the scan's folder, which need not be there yet.
    """
    location = re.sub(r"\?\w+=.*", "", uri.partition(":")[2])
    if "://" in location:
        return
    place = os.path.realpath(out)
    if os.path.isdir(location):
        inside = Path(place).is_relative_to(os.path.realpath(location))
    else:
        inside = any(_matches(os.path.join(place, name), location) for name in _WRITTEN)
    if inside:
        raise DataError(
            f"{out}: lies inside the source {uri}, so that what the scan writes would be scanned, too; "
            "choose a folder outside it"
        )


def _matches(path: str, location: str) -> bool:
    """Whether a glob or brace pattern may mean a path; rather once too often."""
    if not re.search(r"[*?\[{]", location):
        return False
    try:
        from fsspec.utils import glob_translate
    except ImportError as error:
        raise MissingExtraError("fsspec", "scan") from error
    return bool(re.match(glob_translate(re.sub(r"\{[^{}]*\}", "*", location)), path))
