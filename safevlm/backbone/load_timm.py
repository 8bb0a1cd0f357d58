"""Loading a timm model as a vision tower: its blocks up to the layer that is read, and its preprocessing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from timm.data import resolve_data_config
from torch import nn
from transformers import CLIPImageProcessor

from safevlm.errors import BackboneError

from .families import TOWERS
from .families.timm import TimmConfig, TimmTower, check_timm, timm_config
from .freeze import freeze
from .hub import HubOptions, explain
from .layer import Layer, choose_layer, layers_read
from .preprocessor import Preprocessor
from .tower import VisionTower
from .tower_files import check_complete, read_tensors, weight_map

TIMM = "timm:"
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""timm's names -> Pillow's numbers."""


def is_timm(name: str | Path) -> bool:
    """Whether a name says that timm knows it."""
    return str(name).startswith(TIMM)


def load_timm_tower(
    name: str, *, layer: Layer, dtype: torch.dtype | None, device: torch.device, hub: HubOptions
) -> VisionTower:
    """Load `timm:` and a name of timm, whose weights are on the hub, or a folder that timm wrote."""
    own = name.removeprefix(TIMM)
    local = Path(own).is_dir()
    model = _create_empty(own, local)
    config = timm_config(model)
    processor = timm_image_processor(model)
    location = own if local else (model.pretrained_cfg.get("hf_hub_id") or "")
    if not location:
        raise BackboneError(
            f"timm has no weights of {own!r} on the hub; name some with their tag, such as {own}.<tag>: "
            f"{', '.join(timm.list_pretrained(own.split('.')[0] + '*')) or 'it has none'}"
        )
    read = choose_layer(TOWERS["timm"], config, layer)
    tower = _wrap(_prune(model, read, config), config, processor, read)
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
    return Preprocessor(TOWERS["timm"], timm_image_processor(_create_empty(own, Path(own).is_dir())))


def _create_empty(own: str, local: bool) -> Any:
    """The model of a timm name or folder, without weights."""
    try:
        with init_empty_weights(include_buffers=False):
            return check_timm(timm.create_model(f"local-dir:{own}" if local else own, num_classes=0))
    except (RuntimeError, FileNotFoundError) as error:
        raise BackboneError(
            f"timm has no model {own!r}: {error}. List them with timm.list_models(pretrained=True), or give a "
            "folder with config.json and model.safetensors"
        ) from error


def wrap_timm_tower(module: nn.Module, image_processor: Any = None, *, layer: Layer = "auto") -> VisionTower:
    """A timm `VisionTransformer` in memory; its own data config makes the image processor where none is given."""
    model = check_timm(module)
    config = timm_config(model)
    read = choose_layer(TOWERS["timm"], config, layer)
    return _wrap(model, config, image_processor or timm_image_processor(model), read)


def timm_image_processor(model: Any) -> Any:
    """The preprocessing of timm's data config as the image processor that the other towers have."""
    size = model.patch_embed.img_size  # the model's own, where it was made in another size than its weights'
    data = resolve_data_config({"input_size": (3, *size)} if size else {}, model=model)
    _, height, width = data["input_size"]
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


def _wrap(model: Any, config: TimmConfig, image_processor: Any, layer: int | None) -> VisionTower:
    layers = None if layer is None else layers_read(layer, config.num_hidden_layers)
    return VisionTower(
        freeze(TimmTower(model, layers=layers, config=config)),
        image_processor,
        family=TOWERS["timm"],
        layer=layer,
        depth=config.num_hidden_layers,
        deepest=None,
        drops_class_token=False,
    )
