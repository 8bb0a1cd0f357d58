"""Filling the feature cache: the processes of a run verify, compute and find it together."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from safevlm.backbone import VisionTower
from safevlm.errors import DataError, SafeVLMError
from safevlm.labelled import LabelledRow

from .cache import FeatureCache
from .ranks import Ranks

LOGGER = logging.getLogger(__name__)
SAMPLE = 16
"""Images whose numbers of patches say how much space the others need."""


@dataclass(frozen=True)
class Filler:
    """Puts images into a cache; every process of the run has one and calls `fill`.

    Processes that see the same folder share its work, whether they are on one node or on several. Those
    of a node with a folder of its own fill that one.

    Args:
        cache: the folder's, of this process.
        tower: on the device of this process.
        ranks: the processes.
        batch_size: images per pass.
        silent: whether to show no progress.
    """

    cache: FeatureCache
    tower: VisionTower
    ranks: Ranks
    batch_size: int
    silent: bool

    def fill(self, rows: Mapping[str, LabelledRow]) -> None:
        """Verify what the cache has of these images, by their hashes, and compute the rest, each once per folder.

        Raises:
            DataError: too little space on the disk, which is looked at before any image is computed; features
                that cannot be written.
        """
        group = self.ranks.same_folder(self.cache.folder)
        self._verify(rows, group)
        missing = self.cache.missing(rows)
        if self.ranks.rank == group[0]:
            LOGGER.info(
                "feature cache %s: %d of %d images to compute", self.cache.folder, len(missing), len(rows)
            )
        absent = [rows[key] for key in missing]
        self._together(lambda: self._check_space(absent))
        self._together(lambda: self._compute(absent[group.index(self.ranks.rank) :: len(group)]))
        self._load(group)
        if left := self.cache.missing(rows):
            raise DataError(
                f"{self.cache.folder}: {len(left)} images that another process computed are not there; is the "
                "folder being deleted or written by another run? Give each node a folder on a disk of its own "
                "(--model.cache.folder)"
            )

    def _verify(self, rows: Mapping[str, LabelledRow], group: Sequence[int]) -> None:
        """Each process reads its share of the shards; what one finds damaged, all forget."""
        self._load(group)  # listings may differ where another run is writing
        shards = sorted(self.cache.shards)
        own = shards[group.index(self.ranks.rank) :: len(group)]
        found = self.ranks.gather(self.cache.damaged(rows, own))
        for shard in {shard for rank in group for shard in found[rank]}:
            self.cache.drop(shard, "a checksum does not match")

    def _load(self, group: Sequence[int]) -> None:
        """Know the shards that the others of the group know."""
        known = self.ranks.gather(self.cache.shards)
        self.cache.load(shard for rank in group for shard in known[rank])

    def _check_space(self, rows: Sequence[LabelledRow]) -> None:
        """Raise DataError where the features of these images do not fit on the disk."""
        sample = [image for row in rows[:: -(-len(rows) // SAMPLE) or 1] if (image := row.open()) is not None]
        if not sample:
            return
        channels = self.tower.dim * self.cache.states
        size = np.dtype(self.cache.identity["precision"]).itemsize
        each = self.tower.positions(self.tower.preprocess(sample)) / len(sample) * channels * size
        needed, free = len(rows) * each, shutil.disk_usage(self.cache.folder).free
        if needed > free:
            raise DataError(
                f"{self.cache.folder}: the features of {len(rows)} images need {needed / 1e9:.3g} GB "
                f"({each / 1e6:.3g} MB each), the disk has {free / 1e9:.3g} GB left; free space, or give a folder "
                "on another disk (--model.cache.folder)"
            )

    def _compute(self, rows: Sequence[LabelledRow]) -> None:
        """Run the tower on images and write their features."""
        tower, size, packs = self.tower, self.batch_size, self.cache.states > 1
        starts = range(0, len(rows), size)
        for start in tqdm(starts, desc="vision features", unit="batch", disable=self.silent):
            part = rows[start : start + size]
            images = [image for row in part if (image := row.open()) is not None]
            passed = tower(tower.preprocess(images), for_replay=packs)
            self.cache.write([row.key for row in part], tower.pack(passed) if packs else passed.views)
        self.cache.flush()

    def _together(self, step: Callable[[], None]) -> None:
        """Do a step in every process; where one of them fails all raise, so that none waits for it."""
        own: SafeVLMError | None = None
        try:
            step()
        except SafeVLMError as error:
            own = error
        problems = self.ranks.gather(str(own) if own else "")
        if own is not None:
            raise own
        if found := next(filter(None, problems), None):
            raise DataError(found)
