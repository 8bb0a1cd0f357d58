"""Vision features on disk: computed once per image, read in every epoch.

A cache folder belongs to one tower, layer, preprocessing and precision, which `cache.json` names; another
one's features are refused. A shard is an .npy file (patches of all its images, dim), mapped into memory, and a
JSON index that is written after it: a shard without a whole index, or whose size is not the one the
index names, was interrupted and is computed again. So is an image whose checksum is not its index's.

Features are stored as float16 by default: relative error up to 2^-11 (0.05 %), half the size of float32
(LLaVA-1.5: 1.2 MB per image). Values beyond float16's 65,504 are refused, not clipped.

Processes that share a folder find what the others wrote by its name (`load`), not by listing the folder,
which network file systems may answer from memory.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import secrets
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from safevlm.backbone import WHOLE, Grid, Views, VisionTower
from safevlm.errors import DataError
from safevlm.files import replacing, write_bytes

from .shard import ShardRows, open_shard

LOGGER = logging.getLogger(__name__)
Precision: TypeAlias = Literal["float16", "float32"]
SCHEMA = 2
BROKEN = (OSError, ValueError, KeyError, TypeError)
"""What reading a shard that is not whole raises."""
SHARD_BYTES = 64 * 2**20
"""Features that an interruption can lose."""


def cache_identity(
    tower: VisionTower, precision: Precision, *, states: int = 1, bfloat16: bool = False
) -> dict[str, Any]:
    """What features depend on: the tower's weights, the layer, the preprocessing, how they are stored.

    The weights' hash is over all of them, in bfloat16, so that it does not depend on the dtype they were loaded in.

    Args:
        states: how many features each position has, side by side: that of the layer, and what else the LLM reads.
        bfloat16: whether they are computed by `bfloat16_copy`, whatever the backbone's dtype.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.module.state_dict().items()):
        digest.update(name.encode())
        values = tensor.detach().to("cpu", torch.bfloat16).flatten()
        digest.update(values.view(torch.uint8).numpy().tobytes())
    preprocessing = json.dumps(tower.image_processor.to_dict(), sort_keys=True, default=str)
    return {
        "schema": SCHEMA,
        "tower_sha256": digest.hexdigest(),
        "layer": tower.layer,
        "drops_class_token": tower.drops_class_token,
        "preprocessing_sha256": hashlib.sha256(preprocessing.encode()).hexdigest(),
        "precision": precision,
        **({"states": states} if states > 1 else {}),
        **({"dtype": "bfloat16"} if bfloat16 else {}),
    }


def bfloat16_copy(tower: VisionTower) -> VisionTower:
    """A tower that is quick on CPUs with bfloat16 instructions, BatchNorms folded; the given one stays as it is."""
    quick = copy.deepcopy(tower)
    quick.fold_norms()
    quick.module.to(torch.bfloat16)
    return quick


class FeatureCache:
    """Image hash -> patch features.

    Args:
        folder: made where it does not exist.
        identity: from `cache_identity`.

    Raises:
        DataError: the folder holds another tower's features, or something else.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = Path(folder), identity
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bind()
        self._shards: dict[str, np.memmap[Any, Any]] = {}
        self._locations: dict[str, ShardRows] = {}
        self._pending: dict[str, tuple[np.ndarray[Any, Any], list[Grid]]] = {}
        self.reload()

    def _bind(self) -> None:
        path = self.folder / "cache.json"
        if not path.exists():
            write_bytes(path, json.dumps(self.identity, indent=2).encode())
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(
                f"{path}: is not JSON ({error}); delete the folder, it is computed again"
            ) from error
        found = found if isinstance(found, dict) else {}
        for key in {**self.identity, **found}:
            own, other = self.identity.get(key), found.get(key)
            if other != own:
                raise DataError(
                    f"{path}: the features in this cache have {key} {other!r}, this run's tower has {own!r}; "
                    "give another cache folder (--model.cache.folder), or delete this one"
                )

    def __len__(self) -> int:
        return len(self._locations)

    @property
    def states(self) -> int:
        """How many features each position has."""
        return int(self.identity.get("states", 1))

    @property
    def shards(self) -> list[str]:
        """Names of the shards that are known."""
        return list(self._shards)

    def reload(self) -> None:
        """Find what is in the folder; shards that are not whole are deleted and logged."""
        for index in sorted(self.folder.glob("shard-*.json")):
            try:
                self._know(index.stem)
            except BROKEN as error:
                self.drop(index.stem, str(error))

    def load(self, shards: Iterable[str]) -> None:
        """Know shards that other processes wrote, by their names; those that cannot be read are logged."""
        for shard in shards:
            try:
                self._know(shard)
            except BROKEN as error:
                LOGGER.warning("%s/%s: cannot be read (%s)", self.folder, shard, error)

    def _know(self, shard: str) -> None:
        if shard not in self._shards:
            self._shards[shard], locations = open_shard(self.folder / f"{shard}.json")
            self._locations.update(locations)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys, each once, that have no features."""
        return [key for key in dict.fromkeys(keys) if key not in self._locations and key not in self._pending]

    def damaged(self, keys: Iterable[str], shards: Iterable[str]) -> list[str]:
        """Which of these shards have features of the keys that do not match their checksums; reads all of them."""
        asked = set(shards)
        shards_of = {key: self._locations[key].shard for key in dict.fromkeys(keys) if key in self._locations}
        return list(
            dict.fromkeys(
                shard for key, shard in shards_of.items() if shard in asked and not self._whole(key)
            )
        )

    def drop(self, shard: str, reason: str) -> None:
        """Forget a shard; its images are computed again."""
        LOGGER.warning(
            "%s/%s: an interrupted or damaged shard is computed again (%s)", self.folder, shard, reason
        )
        self._shards.pop(shard, None)
        self._locations = {
            key: location for key, location in self._locations.items() if location.shard != shard
        }
        for suffix in (".json", ".npy"):
            (self.folder / f"{shard}{suffix}").unlink(missing_ok=True)

    def _whole(self, key: str) -> bool:
        return zlib.crc32(self._rows(key).tobytes()) == self._locations[key].crc32

    def _rows(self, key: str) -> np.ndarray[Any, Any]:
        location = self._locations[key]
        rows: np.ndarray[Any, Any] = self._shards[location.shard][
            location.start : location.start + location.count
        ]
        return rows

    def read(self, keys: Sequence[str], *, channels: int | None = None) -> Views:
        """The views of these images, float32; raises KeyError for a key that was never written.

        Args:
            channels: how many, from the first on; None: all.
        """
        found, owners = [], []
        for number, key in enumerate(keys):
            rows = torch.from_numpy(self._rows(key)[:, :channels].astype(np.float32))
            grids = self._locations[key].grids
            parts = rows.split([h * w for h, w in grids])
            found += list(zip(parts, grids, strict=True))
            owners += [number] * len(grids)
        return Views.gather(found, owners, [WHOLE] * len(owners))

    def write(self, keys: Sequence[str], views: Views) -> None:
        """Add images' views; they are on disk after the shard is full or `flush`. Boxes are not kept.

        Raises:
            DataError: values that are not finite, or that float16 cannot hold.
        """
        parts: dict[str, list[tuple[np.ndarray[Any, Any], Grid]]] = {key: [] for key in keys}
        for owner, (features, grid) in zip(views.owners, views, strict=True):
            values = features.detach().float().cpu().numpy().astype(self.identity["precision"])
            if not np.isfinite(values).all():
                raise DataError(
                    f"features of {keys[owner][:12]}... are not finite as {self.identity['precision']}; check "
                    "the tower, or store them as float32 (--model.cache.precision float32)"
                )
            parts[keys[owner]].append((values, grid))
        for key, found in parts.items():
            self._pending[key] = np.concatenate([rows for rows, _ in found]), [grid for _, grid in found]
        if sum(rows.nbytes for rows, _ in self._pending.values()) >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard: data first, then the index that makes it count."""
        if not self._pending:
            return
        rows = [rows for rows, _ in self._pending.values()]
        data = self.folder / f"shard-{secrets.token_hex(8)}.npy"
        index = {
            "keys": list(self._pending),
            "crc32": [zlib.crc32(part.tobytes()) for part in rows],
            "grids": [grids for _, grids in self._pending.values()],
        }
        try:
            with replacing(data) as replacement:
                np.save(replacement.file, np.concatenate(rows), allow_pickle=False)
            content = json.dumps({**index, "bytes": data.stat().st_size}).encode()
            write_bytes(data.with_suffix(".json"), content)
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot write features ({error}); free space, or give another folder "
                "(--model.cache.folder). What was written before is kept"
            ) from error
        self._pending.clear()
        self.load([data.stem])
