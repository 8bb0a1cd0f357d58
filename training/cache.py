"""Vision features on disk: computed once per image, read in every epoch.

A cache folder belongs to one tower, layer, preprocessing and precision, which `cache.json` names; another
one's features are refused. A shard is an .npy file (patches of all its images, dim), mapped into memory, and a
JSON index that is written after it: a shard without a whole index, or whose size is not the one the
index names, was interrupted and is computed again. So is an image whose checksum is not its index's.

Features are stored as float16 by default: relative error up to 2^-11 (0.05 %), half the size of float32
(LLaVA-1.5: 1.2 MB per image). Values beyond float16's 65,504 are refused, not clipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from safevlm.backbone import WHOLE, Grid, Views, VisionTower
from safevlm.errors import DataError

LOGGER = logging.getLogger(__name__)
Precision: TypeAlias = Literal["float16", "float32"]
SCHEMA = 2
SHARD_BYTES = 64 * 2**20
"""Features that an interruption can lose."""


def cache_identity(tower: VisionTower, precision: Precision) -> dict[str, Any]:
    """What features depend on: the tower's weights, the layer, the preprocessing, how they are stored.

    The weights' hash is over all of them, in bfloat16, so that it does not depend on the dtype they were loaded in.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.module.state_dict().items()):
        digest.update(name.encode())
        values = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(values.view(torch.uint8).numpy().tobytes())
    preprocessing = json.dumps(tower.image_processor.to_dict(), sort_keys=True, default=str)
    return {
        "schema": SCHEMA,
        "tower_sha256": digest.hexdigest(),
        "layer": tower.layer,
        "drops_class_token": tower.drops_class_token,
        "preprocessing_sha256": hashlib.sha256(preprocessing.encode()).hexdigest(),
        "precision": precision,
    }


@dataclass(frozen=True)
class _Place:
    """Where an image's rows are: views of these grids, one after another."""

    shard: str
    start: int
    grids: tuple[Grid, ...]
    crc32: int

    @property
    def count(self) -> int:
        return sum(h * w for h, w in self.grids)


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
        self._places: dict[str, _Place] = {}
        self._pending: dict[str, tuple[np.ndarray[Any, Any], list[Grid]]] = {}
        self.reload()

    def _bind(self) -> None:
        path = self.folder / "cache.json"
        if not path.exists():
            _write_atomically(path, json.dumps(self.identity, indent=2).encode())
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(
                f"{path}: is not JSON ({error}); delete the folder, it is computed again"
            ) from error
        for key, own in self.identity.items():
            other = found.get(key) if isinstance(found, dict) else None
            if other != own:
                raise DataError(
                    f"{path}: the features in this cache have {key} {other!r}, this run's tower has {own!r}; "
                    "give another cache folder (--model.cache.folder), or delete this one"
                )

    def __len__(self) -> int:
        return len(self._places)

    def reload(self) -> None:
        """Find what other processes wrote; shards that are not whole are left out and logged."""
        for index in sorted(self.folder.glob("shard-*.json")):
            if index.stem in self._shards:
                continue
            try:
                found = json.loads(index.read_bytes())
                keys, size = list(found["keys"]), found["bytes"]
                grids = [[(int(h), int(w)) for h, w in views] for views in found["grids"]]
                checks = list(found["crc32"])
                data = index.with_suffix(".npy")
                if data.stat().st_size != size:
                    raise ValueError(f"{data.name} has {data.stat().st_size} bytes, {size} expected")
                values = np.load(data, mmap_mode="r", allow_pickle=False)
                ends = list(accumulate(sum(h * w for h, w in views) for views in grids))
                if not (len(keys) == len(checks) == len(grids) and ends and ends[-1] == len(values)):
                    raise ValueError(f"{len(values)} rows, {len(keys)} keys of {ends[-1:]} rows")
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._drop(index.stem, str(error))
                continue
            self._shards[index.stem] = values
            starts = [0, *ends]
            for key, views, check, start in zip(keys, grids, checks, starts[:-1], strict=True):
                self._places[key] = _Place(index.stem, start, tuple(views), check)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys, each once, that have no features or damaged ones; reads every row that is there."""
        wanted = dict.fromkeys(keys)
        damaged = {self._places[key].shard for key in wanted if key in self._places and not self._whole(key)}
        for shard in damaged:
            self._drop(shard, "a checksum does not match")
        return [key for key in wanted if key not in self._places and key not in self._pending]

    def _drop(self, shard: str, reason: str) -> None:
        """Forget a shard; its images are computed again."""
        LOGGER.warning(
            "%s/%s: an interrupted or damaged shard is computed again (%s)", self.folder, shard, reason
        )
        self._shards.pop(shard, None)
        self._places = {key: place for key, place in self._places.items() if place.shard != shard}
        for suffix in (".json", ".npy"):
            (self.folder / f"{shard}{suffix}").unlink(missing_ok=True)

    def _whole(self, key: str) -> bool:
        return zlib.crc32(self._rows(key).tobytes()) == self._places[key].crc32

    def _rows(self, key: str) -> np.ndarray[Any, Any]:
        place = self._places[key]
        rows: np.ndarray[Any, Any] = self._shards[place.shard][place.start : place.start + place.count]
        return rows

    def read(self, keys: Sequence[str]) -> Views:
        """The views of these images, float32; raises KeyError for a key that was never written."""
        found, owners = [], []
        for number, key in enumerate(keys):
            rows = torch.from_numpy(self._rows(key).astype(np.float32))
            grids = self._places[key].grids
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
        part = data.with_name(f".{data.name}.part")
        with part.open("wb") as file:
            np.save(file, np.concatenate(rows), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, data)
        index = {
            "keys": list(self._pending),
            "crc32": [zlib.crc32(part.tobytes()) for part in rows],
            "grids": [grids for _, grids in self._pending.values()],
            "bytes": data.stat().st_size,
        }
        _write_atomically(data.with_suffix(".json"), json.dumps(index).encode())
        self._pending.clear()
        self.reload()


def _write_atomically(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
