"""Names and folders -> a frozen backbone, or its tower alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    StoppingCriteria,
    TextIteratorStreamer,
)
from transformers import logging as transformers_logging
from transformers.utils.hub import cached_file

from safevlm.errors import BackboneError

from .families import Family, family_of
from .freeze import freeze
from .prompt_table import PromptTable
from .tower import TowerPass, VisionTower, layers_read

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class HubOptions:
    """How files are found: the arguments of the same names of `transformers.from_pretrained`."""

    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False

    @property
    def without_revision(self) -> HubOptions:
        """For a second repository, of which the first one's revision says nothing."""
        return replace(self, revision=None)

    @property
    def download(self) -> dict[str, Any]:
        """The arguments of a single download."""
        return {k: v for k, v in vars(self).items() if k != "trust_remote_code"}


@dataclass(frozen=True)
class Backbone:
    """A vision-language model with its processor; frozen by `load_backbone` and `wrap_backbone`."""

    name: str
    model: Any
    processor: Any
    family: Family

    @cached_property
    def tower(self) -> VisionTower:
        """The model's own vision tower, not a copy."""
        return _wrap_tower(self.family.find_tower(self.model), self.model.config, self.family, self.processor)

    @property
    def model_type(self) -> str:
        """`config.model_type`."""
        return str(self.model.config.model_type)

    @property
    def tokenizer(self) -> Any:
        """The processor's own."""
        return self.processor.tokenizer

    @property
    def input_embeddings(self) -> Any:
        """The LLM's input embedding module."""
        return self.model.get_input_embeddings()

    @property
    def prompt_table(self) -> PromptTable:
        """What the safety head reads prompts with; it shares the LLM's embeddings."""
        return PromptTable(self.tokenizer, self.input_embeddings.weight)

    def on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs where the LLM's embeddings are, pixels in the model's dtype."""
        device, dtype = self.input_embeddings.weight.device, self.tower.dtype
        return {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in tensors.items()
        }

    def replay(
        self, passed: TowerPass, images: Sequence[int], counts: Sequence[int]
    ) -> AbstractContextManager[None]:
        """`VisionTower.replay` for prompts that have `counts` of these images each, in order."""
        together = [count for count in counts for _ in range(count)]
        used = [
            self.family.rows_used(passed.rows[image], images_in_prompt=count)
            for image, count in zip(images, together, strict=True)
        ]
        return self.tower.replay(passed, images, rows_used=used)

    @property
    def text_dim(self) -> int:
        """Width of the LLM's input embeddings."""
        return int(self.input_embeddings.weight.shape[1])

    @property
    def context_length(self) -> int:
        """Most positions that the LLM was made for."""
        return int(self.model.config.get_text_config().max_position_embeddings)


def load_backbone(
    name: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    hub: HubOptions | None = None,
    **model_kwargs: Any,
) -> Backbone:
    """Load a model and its processor, frozen.

    Args:
        name: hub id or folder.
        dtype: None: the files' own with a `device_map`, float32 without one, since half precision
            crawls on most CPUs; else as in `transformers.from_pretrained`.
        device_map, model_kwargs: as in `transformers.from_pretrained`.

    Raises:
        BackboneError: not found, no network, or an unknown family.
    """
    hub = hub or HubOptions()
    config = _load_config(name, hub)
    family_of(config)
    if dtype is None:
        dtype = "auto" if device_map not in (None, "cpu") else torch.float32
    options = {**vars(hub), "dtype": dtype, **model_kwargs}
    if device_map is not None:
        options["device_map"] = device_map
    with _explain(name):
        model = AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True, **options)
        processor = AutoProcessor.from_pretrained(name, **vars(hub))
    return wrap_backbone(model, processor, name=str(name))


def wrap_backbone(model: Any, processor: Any, *, name: str | None = None) -> Backbone:
    """A backbone from a model that is already in memory. Freezes it in place."""
    family = family_of(model.config)
    return Backbone(name or str(model.config._name_or_path or ""), freeze(model), processor, family)


def load_tower(
    name: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    hub: HubOptions | None = None,
) -> VisionTower:
    """Load the vision tower alone, up to the layer that is read; no other tensor is.

    Args:
        name: hub id or folder.
        dtype: None: the files' own, and float32 on a CPU.

    Raises:
        BackboneError: not found, an unknown family, or tensors of the tower are missing.
    """
    hub = hub or HubOptions()
    config = _load_config(name, hub)
    family = family_of(config)
    with init_empty_weights(include_buffers=False):
        module = family.build_tower(_up_to_layer(config.vision_config, family.vision_layer(config)))
    tensors = _read_tower(name, family, module, hub, dtype=dtype, device=torch.device(device))
    module.load_state_dict(tensors, strict=True, assign=True)
    module.to(device)
    with _explain(name):
        processor = AutoProcessor.from_pretrained(name, **vars(hub))
    return _wrap_tower(freeze(module), config, family, processor)


def load_prompt_table(name: str | Path, *, hub: HubOptions | None = None) -> PromptTable:
    """The tokenizer and the input embeddings, and nothing else of the LLM."""
    hub = hub or HubOptions()
    family = family_of(_load_config(name, hub))
    files = _weight_map(name, hub)
    for key in family.embedding_keys:
        if key in files:
            with _explain(name), safe_open(files[key], framework="pt") as shard:
                tokenizer = AutoProcessor.from_pretrained(name, **vars(hub)).tokenizer
                return PromptTable(tokenizer, shard.get_tensor(key))
    raise BackboneError(
        f"{name}: none of the tensors {list(family.embedding_keys)} is in its checkpoint; "
        "score images without prompts, or load the whole model with SafeVLM"
    )


def text_streamer(backbone: Backbone) -> TextIteratorStreamer:
    """Iterates over the pieces of an answer while `generate` runs in another thread."""
    return TextIteratorStreamer(backbone.tokenizer, skip_prompt=True, skip_special_tokens=True)


class _StopWhen(StoppingCriteria):
    def __init__(self, event: Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def stop_when(event: Event) -> StoppingCriteria:
    """Ends a generation at the first token after `event` is set."""
    return _StopWhen(event)


def quiet() -> None:
    """Keep transformers' notices and progress bars off the screen."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_model_type(name: str | Path, *, hub: HubOptions | None = None) -> str:
    """`config.model_type` of a backbone; raises BackboneError where it is not found or of no known family."""
    config = _load_config(name, hub or HubOptions())
    family_of(config)
    return str(config.model_type)


def _load_config(name: str | Path, hub: HubOptions) -> Any:
    with _explain(name):
        return AutoConfig.from_pretrained(name, **vars(hub))


def _wrap_tower(module: nn.Module, config: Any, family: Family, processor: Any) -> VisionTower:
    depth, layers = getattr(config.vision_config, "num_hidden_layers", None), family.vision_layers(config)
    return VisionTower(
        module,
        processor.image_processor,
        family=family,
        layer=family.vision_layer(config),
        depth=depth,
        deepest=max(layers_read(layer, depth) for layer in layers) if depth and layers else None,
        drops_class_token=family.drops_class_token(config),
    )


def _weight_map(name: str | Path, hub: HubOptions) -> Mapping[str, Path]:
    """Tensor name -> local file that holds it, downloading what is asked of the hub only when opened."""
    with _explain(name):
        index = cached_file(str(name), INDEX, _raise_exceptions_for_missing_entries=False, **hub.download)
        if index is None:
            single = cached_file(str(name), SINGLE, **hub.download)
            with safe_open(single, framework="pt") as shard:
                return dict.fromkeys(shard.keys(), Path(str(single)))
        shards: dict[str, str] = json.loads(Path(index).read_text("utf-8"))["weight_map"]
    return _LazyShards(str(name), shards, hub)


class _LazyShards(dict[str, Path]):
    """A weight map that fetches a shard when one of its tensors is looked up."""

    def __init__(self, name: str, shards: Mapping[str, str], hub: HubOptions) -> None:
        super().__init__({key: Path(file) for key, file in shards.items()})
        self._name, self._hub = name, hub

    def __getitem__(self, key: str) -> Path:
        with _explain(self._name):
            return Path(str(cached_file(self._name, str(super().__getitem__(key)), **self._hub.download)))


def _up_to_layer(vision_config: Any, layer: int | None) -> Any:
    """The vision config without layers and heads that nothing reads."""
    kept = copy.deepcopy(vision_config)
    if layer is not None:
        kept.num_hidden_layers = layers_read(layer, kept.num_hidden_layers)
    if getattr(kept, "vision_use_head", False):
        kept.vision_use_head = False
    return kept


def _read_tower(
    name: str | Path,
    family: Family,
    module: nn.Module,
    hub: HubOptions,
    *,
    dtype: torch.dtype | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """The module's tensors out of the checkpoint's files, each cast and moved as it is read."""
    files = _weight_map(name, hub)
    if dtype is None and device.type == "cpu":
        dtype = torch.float32
    # published files and newer classes differ by an inner `vision_model.`
    wanted = {key.removeprefix("vision_model."): key for key in module.state_dict()}
    found: dict[str, Tensor] = {}
    for key in files:
        prefix = next((p for p in family.tower_keys if key.startswith(p)), None)
        target = wanted.get(key.removeprefix(prefix).removeprefix("vision_model.")) if prefix else None
        if target is not None:
            with _explain(name), safe_open(files[key], framework="pt") as shard:
                found[target] = shard.get_tensor(key).to(device, dtype)
    if missing := sorted(set(wanted.values()) - set(found)):
        raise BackboneError(
            f"{name}: {len(missing)} tensors of the vision tower are missing, {missing[0]!r} first; "
            "the checkpoint is incomplete, download it again"
        )
    return found


class _explain:
    """Turns the loaders' own errors into one that names the backbone and the remedy."""

    def __init__(self, name: str | Path) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (OSError, ValueError, SafetensorError)) and not isinstance(error, BackboneError):
            first = (
                str(error).strip().splitlines()[0] if str(error).strip() else kind.__name__ if kind else ""
            )
            raise BackboneError(
                f"cannot load the backbone {str(self._name)!r}: {first}. Check the name, give the path of a "
                "local folder, or connect to the network for a hub id"
            ) from error
