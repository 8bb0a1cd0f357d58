"""Vision towers without their language model: out of a backbone's files, of their own, of timm, or in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import nn
from transformers import AutoImageProcessor

from safevlm.errors import BackboneError

from .families import Family, tower_family_of
from .freeze import freeze
from .hub import HubOptions, explain, load_config
from .layer import Layer, choose_layer, layers_read
from .load_timm import is_timm, load_timm_preprocessor, load_timm_tower, wrap_timm_tower
from .placement import one_device, one_dtype, tower_dtype
from .preprocessor import Preprocessor
from .processors import load_processor
from .tower import VisionTower
from .tower_files import check_complete, read_tensors, weight_map


def load_tower(
    name: str | Path,
    *,
    layer: Layer = "auto",
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    hub: HubOptions | None = None,
) -> VisionTower:
    """Load the vision tower alone, up to the layer that is read; no other tensor is.

    Args:
        name: hub id or folder of a vision-language model, of a CLIP or SigLIP model or its vision half;
            or `timm:` and a name or folder of timm.
        layer: the hidden state to read; "auto": the family's own choice.
        dtype: None: the files' own, and float32 on a CPU; `"auto"`: the files' own.
        torch_dtype: the older name of `dtype`, with a warning.
        device_map: one device, as in transformers: `"cuda:0"`, `0`, `{"": 0}`; None: the CPU.
        attn_implementation: as in transformers; of timm `"sdpa"` or `"eager"`.

    Raises:
        BackboneError: the name is not found, is of an unknown family, or tensors of the tower are missing.
        ValueError: `device_map` splits the tower over several devices, or `dtype` is unknown or given under both names.
    """
    hub = hub or HubOptions()
    device = one_device(device_map)
    kept_dtype = tower_dtype(one_dtype(dtype, torch_dtype), device)
    if is_timm(name):
        tower = load_timm_tower(str(name), layer=layer, dtype=kept_dtype, device=device, hub=hub)
        return _with_attention(tower, attn_implementation)
    config = load_config(name, hub)
    family = tower_family_of(config)
    read = choose_layer(family, config, layer)
    module = _load_module(name, config, family, read, dtype=kept_dtype, device=device, hub=hub)
    processor = _load_image_processor(name, config, family, hub)
    found = tower_of(freeze(module), config, family, processor, layer=read)
    return _with_attention(found, attn_implementation)


def load_preprocessor(name: str | Path, *, hub: HubOptions | None = None) -> Preprocessor:
    """Load what makes a tower's inputs of images, in float32; no weights are read.

    Args:
        name: as in `load_tower`.

    Raises:
        BackboneError: the files are not found, the family is unknown, or the image processor is missing.
    """
    hub = hub or HubOptions()
    if is_timm(name):
        return load_timm_preprocessor(str(name))
    config = load_config(name, hub)
    family = tower_family_of(config)
    return Preprocessor(family, _load_image_processor(name, config, family, hub))


def _load_image_processor(name: str | Path, config: Any, family: Family, hub: HubOptions) -> Any:
    if family.alone:
        with explain(name):
            return AutoImageProcessor.from_pretrained(name, **vars(hub))
    processor = load_processor(name, hub)
    family.complete(processor, config)
    return processor.image_processor


def _load_module(
    name: str | Path,
    config: Any,
    family: Family,
    layer: int | None,
    *,
    dtype: torch.dtype | None,
    device: torch.device,
    hub: HubOptions,
) -> nn.Module:
    """The tower's module up to the layer that is read, on the device; `dtype` None: the files' own."""
    with init_empty_weights(include_buffers=False):
        module = family.build_tower(_up_to_layer(family.vision_config(config), layer))
    files = weight_map(name, hub)
    sources = _sources(files, family, module)
    wanted = module.state_dict()
    check_complete(name, wanted, sources)
    tensors = read_tensors(name, files, sources, wanted=wanted, device=device, dtype=dtype)
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.to(device)


def wrap_tower(module: nn.Module, image_processor: Any = None, *, layer: Layer = "auto") -> VisionTower:
    """Wrap a tower that is in memory; the module itself is frozen.

    Args:
        module: a CLIP or SigLIP vision model, a whole model that has one, or a timm `VisionTransformer`.
        image_processor: the Hugging Face one that belongs to it; for timm None: as its own data config says.
        layer: the hidden state to read; "auto": the family's own choice.

    Raises:
        BackboneError: the module is of an unknown kind, its image processor is missing, or it does not have the layer.
    """
    if not hasattr(module, "config"):
        return wrap_timm_tower(module, image_processor, layer=layer)
    family = tower_family_of(module.config)
    if image_processor is None:
        raise BackboneError(
            f"{type(module).__name__} came without its image processor; give image_processor=..., for example "
            "AutoImageProcessor.from_pretrained of where the model is from"
        )
    tower = freeze(family.find_tower(module))
    return tower_of(tower, module.config, family, image_processor, layer=layer)


def tower_of(
    module: nn.Module, config: Any, family: Family, processor: Any, *, layer: Layer = "auto"
) -> VisionTower:
    """A family's module as a `VisionTower`; `processor` is the loaded one, or its image processor."""
    depth: int | None = getattr(family.vision_config(config), "num_hidden_layers", None)
    read = choose_layer(family, config, layer)
    others = () if family.alone else family.vision_layers(config)
    deepest = None
    if depth is not None and others is not None and read is not None:
        deepest = max(layers_read(index, depth) for index in (*others, read))
    return VisionTower(
        module,
        getattr(processor, "image_processor", processor),
        family=family,
        layer=read,
        depth=depth,
        deepest=deepest,
        drops_class_token=family.drops_class_token(config),
        llm_layers=others or (),
    )


def _with_attention(tower: VisionTower, name: str | None) -> VisionTower:
    if name is not None:
        try:
            tower.family.set_attention(tower.module, name)
        except (ValueError, ImportError) as error:
            raise BackboneError(
                f"attn_implementation {name!r} does not work with this {tower.model_type} tower: {error}"
            ) from error
    return tower


def _up_to_layer(vision_config: Any, layer: int | None) -> Any:
    """The vision config without layers and heads that nothing reads."""
    kept = copy.deepcopy(vision_config)
    if layer is not None:
        kept.num_hidden_layers = layers_read(layer, kept.num_hidden_layers)
    if getattr(kept, "vision_use_head", False):
        kept.vision_use_head = False
    return kept


def _sources(files: Mapping[str, Path], family: Family, module: nn.Module) -> dict[str, str]:
    """The module's tensors -> their names in the files."""
    # published files and newer classes differ by an inner `vision_model.`
    wanted = {key.removeprefix("vision_model."): key for key in module.state_dict()}
    sources = {}
    for key in files:
        prefix = next((p for p in family.tower_keys if key.startswith(p)), None)
        if prefix is not None:
            target = wanted.get(key.removeprefix(prefix).removeprefix("vision_model."))
            if target is not None:
                sources[target] = key
    return sources
