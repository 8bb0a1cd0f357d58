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

from safevlm.data.parts import Column, read_column, written_by
from safevlm.errors import DataError

VIEW_FORMAT = "safevlm-view/1"
VIEW_COLUMNS = (Column("shard", "string", nullable=False), Column("id", "string", nullable=False))
SHARDS_HELD = 4
"""Shards whose ids a view holds at a time, when it is asked by shard."""


class View:
    """Samples that were kept. What the scan has no row of was not kept. Picklable.

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
        """Whether the sample with an id was kept, where ids are unique in the source; holds them all."""
        return id in self._all

    def webdataset(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample of `webdataset` (`__key__`, `__url__`) was kept; holds the ids of a few shards.

        Raises:
            DataError: the tar belongs to several shards of the view by its name.
        """
        shard = self._shard(str(sample["__url__"]))
        return shard is not None and sample["__key__"] in self._ids(shard)

    @cached_property
    def _all(self) -> frozenset[str]:
        return frozenset(read_column(self.path, "id"))

    @cached_property
    def shards(self) -> frozenset[str]:
        """Names of the shards that samples were kept of."""
        return frozenset(read_column(self.path, "shard"))

    @cached_property
    def _shard(self) -> Any:
        return lru_cache(maxsize=1024)(self._find)

    def _find(self, url: str) -> str | None:
        """The shard of a tar: its URL ends in the shard's name."""
        place = url.partition("?")[0]
        found = [name for name in self.shards if place == name or place.endswith(f"/{name}")]
        if len(found) > 1:
            raise DataError(
                f"{url}: may be any of {', '.join(sorted(found))} in {self.path}; rename the tars"
            )
        return found[0] if found else None

    @cached_property
    def _ids(self) -> Any:
        def read(shard: str) -> frozenset[str]:
            return frozenset(read_column(self.path, "id", where=("shard", shard)))

        return lru_cache(maxsize=SHARDS_HELD)(read)
