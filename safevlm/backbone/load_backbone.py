"""Names and folders -> a frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from safevlm.errors import BackboneError

from .families import Family, family_of
from .families.timm import TimmConfig
from .fingerprint import fingerprint, first_matrix
from .freeze import freeze
from .hub import HubOptions, explain, load_config
from .load_timm import is_timm
from .load_tower import tower_of
from .placement import on_cpu, one_dtype
from .processors import check_parts, complete, load_processor
from .prompt_table import PromptTable
from .quantized import check_unquantized, skip_tower
from .render import Renderer
from .tower import VisionTower
from .tower_files import weight_map


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
        module = self.family.find_tower(self.model)
        check_unquantized(module, self.name)
        return tower_of(module, self.model.config, self.family, self.processor)

    @property
    def model_type(self) -> str:
        """`config.model_type`."""
        return str(self.model.config.model_type)

    @property
    def tokenizer(self) -> Any:
        """The processor's own."""
        return self.processor.tokenizer

    @cached_property
    def renderer(self) -> Renderer:
        """Writes chats as prompts."""
        config = self.model.config.to_dict()
        ids = [
            value
            for key, value in config.items()
            if key.endswith(("_token_id", "_token_index"))
            and not key.startswith("pad")
            and isinstance(value, int)
        ]
        return Renderer(self.processor, self.family, ids=ids, name=self.name)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end generation."""
        ends = self.model.generation_config.eos_token_id
        return tuple(ends) if isinstance(ends, (list, tuple)) else (ends,)

    @property
    def input_embeddings(self) -> Any:
        """The LLM's input embedding module."""
        return self.model.get_input_embeddings()

    @property
    def decoder_layers(self) -> list[nn.Module]:
        """The text decoder's layers, in the order in which they run; raises BackboneError where it has none."""
        return self.family.decoder_layers(self.model)

    @property
    def prompt_table(self) -> PromptTable:
        """The tokenizer and the input embeddings, with which the safety head reads prompts; weights are shared."""
        return PromptTable(self.tokenizer, self.input_embeddings.weight)

    @cached_property
    def language_fingerprint(self) -> tuple[float, ...]:
        """Of the LLM: that of its prompt table, then a number for the first matrix of each decoder layer.

        LoRA on the layers does not change it. Raises BackboneError where the decoder has no list of layers.
        """
        return self.prompt_table.fingerprint + fingerprint(map(first_matrix, self.decoder_layers))

    def on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs where the LLM's embeddings are, pixels in the model's dtype."""
        device, dtype = self.input_embeddings.weight.device, self.tower.dtype
        return {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in tensors.items()
        }

    @property
    def text_dim(self) -> int:
        """Width of the LLM's input embeddings."""
        return int(self.input_embeddings.weight.shape[1])

    @property
    def context_length(self) -> int:
        """The LLM's maximum number of positions."""
        return int(self.model.config.get_text_config().max_position_embeddings)


def load_backbone(
    name: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    hub: HubOptions | None = None,
    **model_kwargs: Any,
) -> Backbone:
    """Load a model and its processor, frozen.

    Args:
        name: hub id or folder.
        dtype: None: the files' own, and float32 where all of it is on a CPU, since half precision
            crawls on most CPUs; else as in `transformers.from_pretrained`.
        torch_dtype: the older name of `dtype`, with a warning.
        device_map, model_kwargs: as in `transformers.from_pretrained`; a `quantization_config` leaves the
            vision tower out, on whose features scores rest.

    Raises:
        BackboneError: the name is not found, the hub cannot be reached, or the family is unknown.
        ValueError: both `dtype` and `torch_dtype` are given.
    """
    hub = hub or HubOptions()
    dtype = one_dtype(dtype, torch_dtype)
    family = _known_family(name, hub)
    if dtype is None:
        dtype = torch.float32 if on_cpu(device_map) else "auto"
    options = {**vars(hub), "dtype": dtype, **model_kwargs}
    if device_map is not None:
        options["device_map"] = device_map
    if "quantization_config" in options:
        options["quantization_config"] = skip_tower(options["quantization_config"], family.tower)
    with explain(name):
        model = AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True, **options)
    return wrap_backbone(model, load_processor(name, hub), name=str(name))


def wrap_backbone(model: Any, processor: Any, *, name: str | None = None) -> Backbone:
    """A backbone from a model that is already in memory.

    The model itself is frozen, and what its processor, tokenizer or generation config lack is filled in from its
    config.

    Raises:
        BackboneError: the family is unknown, or the processor does not fit the model or lacks a part.
    """
    family = family_of(model.config)
    name = name or str(model.config._name_or_path or "")
    complete(model, check_parts(processor, name), family, name=name)
    backbone = Backbone(name, freeze(model), processor, family)
    backbone.renderer.check()
    return backbone


def load_prompt_table(name: str | Path, *, hub: HubOptions | None = None) -> PromptTable:
    """Load the tokenizer and the input embeddings, and nothing else of the LLM.

    Raises:
        BackboneError: the name is not found, is of an unknown family, or its files have no input embeddings.
    """
    hub = hub or HubOptions()
    family = _known_family(name, hub)
    files = weight_map(name, hub)
    for key in family.embedding_keys:
        if key in files:
            with explain(name), safe_open(files[key], framework="pt") as shard:
                tokenizer = load_processor(name, hub).tokenizer
                return PromptTable(tokenizer, shard.get_tensor(key))
    raise BackboneError(
        f"{name}: none of the tensors {list(family.embedding_keys)} is in its checkpoint; "
        "score images without prompts, or load the whole model with SafeVLM"
    )


def load_model_type(name: str | Path) -> str:
    """`config.model_type` of a backbone; raises BackboneError where it is not found or of no known family."""
    config = load_config(name, HubOptions())
    family_of(config)
    return str(config.model_type)


def _known_family(name: str | Path, hub: HubOptions) -> Family:
    """The family of a hub id or folder; raises BackboneError where it has no language model."""
    return family_of(TimmConfig if is_timm(name) else load_config(name, hub))
