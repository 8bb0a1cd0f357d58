"""Loading a timm model as a vision tower: its blocks up to the layer that is read, and its preprocessing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from timm.data import resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import CLIPImageProcessor

from safevlm.errors import BackboneError

from .families import TOWERS, Family
from .families.timm import TimmConfig, TimmTower, timm_config
from .families.timm_grid import TIMM_GRID, TimmGridTower, check_grid
from .freeze import freeze
from .hub import HubOptions, explain
from .layer import Layer, choose_layer, layers_read
from .preprocessor import Preprocessor
from .tower import VisionTower
from .tower_files import check_complete, read_tensors, weight_map

TIMM = "timm:"
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""timm's names -> Pillow's numbers."""

STATED = ("input_size", "mean", "std")
"""What a data config must state; timm puts ImageNet's in their place, which may be another model's."""


def is_timm(name: str | Path) -> bool:
    """Whether a name says that timm knows it."""
    return str(name).startswith(TIMM)


def load_timm_tower(
    name: str, *, layer: Layer, dtype: torch.dtype | None, device: torch.device, hub: HubOptions
) -> VisionTower:
    """Load `timm:` and a name of timm, whose weights are on the hub, or a folder that timm wrote."""
    own = name.removeprefix(TIMM)
    local = Path(own).is_dir()
    model = _create(own, local=local)
    location = own if local else (model.pretrained_cfg.get("hf_hub_id") or "")
    if not location:
        raise BackboneError(
            f"timm has no weights of {own!r} on the hub; name some with their tag, such as {own}.<tag>: "
            f"{', '.join(timm.list_pretrained(own.split('.')[0] + '*')) or 'it has none'}"
        )
    tower = _tower(model, timm_image_processor(model), layer=layer, pruned=True)
    wanted = tower.module.state_dict()
    with explain(name):
        files = weight_map(location, hub)
    sources = {key: key.removeprefix("model.") for key in wanted if key.removeprefix("model.") in files}
    check_complete(name, wanted, sources)
    tensors = read_tensors(name, files, sources, wanted=wanted, device=device, dtype=dtype)
    tower.module.load_state_dict(tensors, strict=True, assign=True)
    tower.module.to(device)
    return tower


def load_timm_preprocessor(name: str) -> Preprocessor:
    """The preprocessing of what `load_timm_tower` loads; no weights are read."""
    own = name.removeprefix(TIMM)
    model = _create(own, local=Path(own).is_dir())
    return Preprocessor(_family(model), timm_image_processor(model))


def _family(model: Any) -> Family:
    return TOWERS["timm"] if isinstance(model, VisionTransformer) else TIMM_GRID


def wrap_timm_tower(module: nn.Module, image_processor: Any = None, *, layer: Layer = "auto") -> VisionTower:
    """A timm model in memory; its own data config makes the image processor where none is given."""
    if not hasattr(module, "forward_features"):
        raise BackboneError(
            f"{type(module).__name__} is no vision tower that is known here; give a timm model, a CLIP or SigLIP "
            "vision model, or a vision-language model of a known family"
        )
    model: Any = module.eval()
    if not isinstance(model, VisionTransformer):
        check_grid(model, type(model).__name__, _input_size(model))
    if image_processor is None:
        _check_stated(type(model).__name__, getattr(model, "pretrained_cfg", None) or {})
    return _tower(model, image_processor or timm_image_processor(model), layer=layer, pruned=False)


def _check_stated(name: str, config: Mapping[str, Any]) -> None:
    """Raise BackboneError unless a timm model's `pretrained_cfg` says what its images are like."""
    if missing := [key for key in STATED if not config.get(key)]:
        raise BackboneError(
            f"{name}: its data config (pretrained_cfg) has no {', '.join(missing)}, so its preprocessing is not known; "
            'state it in config.json, such as "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], '
            '"std": [0.5, 0.5, 0.5]}, or give a model in memory and image_processor=...'
        )


def _check_folder(folder: str) -> None:
    """Raise BackboneError where a folder's own config.json states no preprocessing; timm would make one up."""
    file = Path(folder) / "config.json"
    if file.is_file():  # else timm says what is missing
        config = json.loads(file.read_text("utf-8"))
        _check_stated(folder, config.get("pretrained_cfg", config))  # older files have it at the top


def _create(own: str, *, local: bool) -> Any:
    """The model without weights; raises BackboneError where timm does not know it, or it is no tower."""
    name = f"local-dir:{own}" if local else own
    if local:
        _check_folder(own)
    try:
        with torch.device("meta"):
            shapes: Any = timm.create_model(name, num_classes=0).eval()
        if not isinstance(shapes, VisionTransformer):
            check_grid(shapes, own, _input_size(shapes))
        with init_empty_weights(include_buffers=False):
            return timm.create_model(name, num_classes=0)
    except (RuntimeError, FileNotFoundError) as error:
        known = [] if local else [*timm.list_models(), *timm.list_pretrained()]
        close = ", ".join(get_close_matches(own, known))
        raise BackboneError(
            f"timm has no model {own!r}: {error}. {f'Close are {close}; list' if close else 'List'} them with "
            "timm.list_models(pretrained=True), or give a folder with config.json and model.safetensors"
        ) from error


def _input_size(model: Any) -> tuple[int, int]:
    """(height, width) in pixels of the images that a model is made for."""
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    _, height, width = resolve_data_config({"input_size": (3, *own)} if own else {}, model=model)[
        "input_size"
    ]
    return height, width


def timm_image_processor(model: Any) -> Any:
    """The preprocessing of timm's data config as the image processor that the other towers have."""
    height, width = _input_size(model)  # its own, where it was made in another size than its weights'
    data = resolve_data_config({"input_size": (3, height, width)}, model=model)
    squash = data["crop_mode"] == "squash"
    known = data["interpolation"] in RESAMPLING and (squash or data["crop_mode"] == "center")
    if not known or (height != width and not squash):
        raise BackboneError(
            f"timm's data config asks for {height} x {width} px, interpolation {data['interpolation']!r} and "
            f"crop_mode {data['crop_mode']!r}; known are {', '.join(RESAMPLING)}, 'squash', and 'center' of "
            "square images: give image_processor=..."
        )
    scaled = [math.floor(edge / data["crop_pct"]) for edge in (height, width)]
    return CLIPImageProcessor(
        size={"height": scaled[0], "width": scaled[1]} if squash else {"shortest_edge": scaled[0]},
        crop_size={"height": height, "width": width},
        resample=RESAMPLING[data["interpolation"]],
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
    )


def _prune(model: Any, layer: int | None, config: TimmConfig) -> Any:
    """The model without blocks, norms and heads that nothing reads."""
    last = config.num_hidden_layers if layer is None else layers_read(layer, config.num_hidden_layers)
    model.prune_intermediate_layers([last - 1], prune_norm=layer is not None, prune_head=True)
    return model


def _tower(model: Any, image_processor: Any, *, layer: Layer, pruned: bool) -> VisionTower:
    """A timm model as a tower; `pruned`: without what nothing reads."""
    family = _family(model)
    if family is TIMM_GRID:
        module = TimmGridTower(model)
        read = choose_layer(family, module.config, layer)
        return VisionTower(
            freeze(module),
            image_processor,
            family=family,
            layer=read,
            depth=None,
            deepest=None,
            drops_class_token=False,
        )
    config = timm_config(model)
    read = choose_layer(TOWERS["timm"], config, layer)
    layers = None if read is None else layers_read(read, config.num_hidden_layers)
    kept = _prune(model, read, config) if pruned else model
    return VisionTower(
        freeze(TimmTower(kept, layers=layers, config=config)),
        image_processor,
        family=TOWERS["timm"],
        layer=read,
        depth=config.num_hidden_layers,
        deepest=None,
        drops_class_token=False,
    )
