"""Tensors out of a checkpoint's safetensors files: those asked for, and no others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from safevlm.errors import BackboneError

from .hub import HubOptions, explain

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_map(name: str | Path, hub: HubOptions) -> Mapping[str, Path]:
    """Tensor name -> local file that holds it, downloading what is asked of the hub only when opened."""
    with explain(name):
        index = cached_file(str(name), INDEX, _raise_exceptions_for_missing_entries=False, **hub.download)
        if index is None:
            single = cached_file(str(name), SINGLE, **hub.download)
            with safe_open(single, framework="pt") as shard:
                return dict.fromkeys(shard.keys(), Path(str(single)))
        shards: dict[str, str] | None = json.loads(Path(index).read_text("utf-8")).get("weight_map")
        if not isinstance(shards, dict):
            raise BackboneError(f"{index}: has no weight_map; the index is damaged, download it again")
    return _LazyShards(str(name), shards, hub)


class _LazyShards(dict[str, Path]):
    """A weight map that fetches a shard when one of its tensors is looked up."""

    def __init__(self, name: str, shards: Mapping[str, str], hub: HubOptions) -> None:
        super().__init__({key: Path(file) for key, file in shards.items()})
        self._name, self._hub = name, hub
        self._fetched: dict[Path, Path] = {}

    def __getitem__(self, key: str) -> Path:
        shard = super().__getitem__(key)
        if shard not in self._fetched:  # the hub is asked once per file
            with explain(self._name):
                self._fetched[shard] = Path(str(cached_file(self._name, str(shard), **self._hub.download)))
        return self._fetched[shard]


def read_tensors(
    name: str | Path,
    files: Mapping[str, Path],
    sources: Mapping[str, str],
    *,
    wanted: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Copies of tensors, each cast and moved as it is read.

    Args:
        name: the backbone's, for errors.
        files: a `weight_map`.
        sources: name of each tensor wanted -> its name in the files.
        wanted: what they replace, for their sizes.
        dtype: of floating-point tensors; None: the files' own.

    Raises:
        BackboneError: a tensor has another size or kind, as quantized ones have.
    """
    found: dict[str, Tensor] = {}
    for target, key in sources.items():
        # opened anew for each: an open file keeps every page that was read from it in memory
        with explain(name), safe_open(files[key], framework="pt") as shard:
            tensor = shard.get_tensor(key)
            _check_fits(name, key, tensor, wanted[target])
            found[target] = tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)
            del tensor  # it is a view of the file
    return found


def _check_fits(name: str | Path, key: str, found: Tensor, wanted: Tensor) -> None:
    kinds = found.is_floating_point() == wanted.is_floating_point()
    if found.shape != wanted.shape or not kinds or (found.is_floating_point() and found.element_size() < 2):
        raise BackboneError(
            f"{name}: {key!r} is {found.dtype} of size {tuple(found.shape)}, {tuple(wanted.shape)} is needed; the "
            "file does not belong to its config.json, or its vision tower is quantized: use an unquantized one"
        )


def check_complete(name: str | Path, wanted: Mapping[str, Tensor], sources: Mapping[str, str]) -> None:
    """Raise BackboneError where tensors of the vision tower are in no file."""
    if missing := sorted(set(wanted) - set(sources)):
        raise BackboneError(
            f"{name}: {len(missing)} tensors of the vision tower are missing, {missing[0]!r} first; "
            "the checkpoint is incomplete, download it again"
        )
