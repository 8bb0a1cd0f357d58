"""The samples that an export kept, as what `datasets` and `webdataset` filter by; no image is copied.

kept = View("clean.parquet")
webdataset.WebDataset("train/{000..127}.tar").select(kept.webdataset)
dataset.filter(lambda row: kept(row["id"]))                                     # ids from a column
dataset.filter(lambda row, n: kept(f"train.parquet:{n}"), with_indices=True)    # by position
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from safevlm.errors import DataError
from safevlm.results.parts import Column, read_column, written_by

VIEW_FORMAT = "safevlm-view/2"
VIEW_COLUMNS = (
    Column("source", "string", nullable=False),
    Column("shard", "string", nullable=False),
    Column("id", "string", nullable=False),  # empty in the one row of a shard without samples
    Column("kept", "bool", nullable=False),
)
SHARDS_HELD = 4
"""Shards whose ids a view holds at a time, when it is asked by shard."""


class View:
    """Samples that were kept: all of their images were scanned, and are of the kinds asked for. Picklable.

    Args:
        path: a file of `safevlm export --format view`.

    Raises:
        DataError: no such file, or another one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if written_by(self.path) != VIEW_FORMAT:
            raise DataError(
                f"{path}: is no view; write one with `safevlm export DIR --out FILE --format view`"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __call__(self, id: str) -> bool:
        """Whether every sample with an id was kept, in whatever shard; holds all ids."""
        return id in self._all

    def webdataset(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample of `webdataset` (`__key__`, `__url__`) was kept; holds the ids of a few shards.

        Raises:
            DataError: the tar may be any of several shards of the view by its name.
        """
        shard = self._shard(str(sample["__url__"]))
        return shard is not None and sample["__key__"] in self._ids(shard)

    @cached_property
    def _all(self) -> frozenset[str]:
        return self._kept(None)

    def _kept(self, where: tuple[str, str] | None) -> frozenset[str]:
        """Ids that were kept wherever they occur."""
        ids, kept = (read_column(self.path, name, where=where) for name in ("id", "kept"))
        refused = {id for id, is_kept in zip(ids, kept, strict=True) if not is_kept}
        return frozenset(id for id in ids if id not in refused)

    @cached_property
    def shards(self) -> frozenset[tuple[str, str]]:
        """Source and name of every shard of the scan, also of those that nothing was kept of."""
        sources, names = (read_column(self.path, name) for name in ("source", "shard"))
        return frozenset(zip(sources, names, strict=True))

    @cached_property
    def _shard(self) -> Any:
        return lru_cache(maxsize=1024)(self._find)

    def _find(self, url: str) -> str | None:
        """The shard of a tar: its URL ends in the shard's name."""
        path = url.partition("?")[0]
        found = [(name, uri) for uri, name in self.shards if path == name or path.endswith(f"/{name}")]
        if len(found) > 1:
            choices = ", ".join(f"{name} of {uri}" for name, uri in sorted(found))
            raise DataError(
                f"{url}: may be any of {choices} in {self.path}; rename the tars, or export a view of each source"
            )
        return found[0][0] if found else None

    @cached_property
    def _ids(self) -> Any:
        return lru_cache(maxsize=SHARDS_HELD)(lambda shard: self._kept(("shard", shard)))
