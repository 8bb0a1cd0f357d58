"""Loads what a stage trains: a guard, or a vision tower with safety modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from safevlm import checkpoint as checkpoints
from safevlm.backbone import (
    PromptTable,
    VisionTower,
    load_backbone,
    load_model_type,
    load_prompt_table,
    load_tower,
)
from safevlm.binding import bind, build_modules, check_prompt_table, check_tower, load_modules
from safevlm.config import SafetyConfig
from safevlm.guard import SafeVLM
from safevlm.modules import SafetyModules

from .options import Sizes


class TowerParts(NamedTuple):
    """A vision tower and safety modules without an LLM; `prompt_table` is None for a tower that has none."""

    config: SafetyConfig
    tower: VisionTower
    prompt_table: PromptTable | None
    modules: SafetyModules


def named_backbone(name: str) -> tuple[str, str]:
    """Where a backbone is loaded from, and the name that a checkpoint keeps of it.

    An embedded backbone keeps its name, also when it is given as a folder; another folder its absolute path.
    """
    path = Path(checkpoints.resolve(name))
    if not path.is_dir():
        return name, name
    embedded = (
        own for own in checkpoints.embedded() if Path(checkpoints.resolve(own)).resolve() == path.resolve()
    )
    return str(path), next(embedded, str(path.resolve()))


def load_guard(
    backbone: str | None, checkpoint: str | None, sizes: Sizes, dtype: str, *, device: torch.device
) -> SafeVLM:
    """A guard with fresh modules on a backbone, or with those of a checkpoint.

    The weights go from the mapped files to the process's own device, with no copy in the host's memory.
    The modules are float32 beside a backbone of any dtype, since they are trained.

    Args:
        backbone: name, folder or hub id; None: the checkpoint's own.
        checkpoint: folder of the modules to continue; None: fresh ones.
        sizes: of fresh modules.
        dtype: of the backbone: auto, float32, bfloat16 or float16.
        device: of this process.

    Raises:
        BackboneError: the backbone is not found, or of no known family.
        CheckpointError: the checkpoint is malformed, or belongs to another backbone.
    """
    source, name = named_backbone(backbone) if backbone is not None else (None, None)
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    if checkpoint is None:
        assert source is not None
        config = sizes.config().with_changes(backbone=name)
        return SafeVLM.attach(load_backbone(source, **options), config, safety_dtype=torch.float32)
    guard = SafeVLM.from_pretrained(checkpoint, backbone=source, safety_dtype=torch.float32, **options)
    guard.config = guard.config.with_changes(backbone=name or guard.config.backbone)
    return guard


def load_tower_parts(
    backbone: str | None, checkpoint: str | None, sizes: Sizes, dtype: str, *, device: torch.device
) -> TowerParts:
    """A vision tower with fresh modules or those of a checkpoint; of an LLM its input embeddings alone are read.

    The arguments are those of `load_guard`, and so are the errors that are raised.
    """
    folder = None if checkpoint is None else checkpoints.fetch(checkpoint)
    config = sizes.config() if folder is None else checkpoints.load_config(folder)
    source, name = named_backbone(backbone or config.backbone)
    torch_dtype = None if dtype == "auto" else getattr(torch, dtype)
    tower = load_tower(source, dtype=torch_dtype, layer=config.vision_layer, device_map=device)
    alone = tower.family.alone
    table = None if alone else load_prompt_table(source)
    if folder is None:
        model_type = None if alone else load_model_type(source)
        config = bind(config, tower, name=name, model_type=model_type, table=table)
        return TowerParts(config, tower, table, build_modules(config))
    check_tower(config, tower, folder)
    if table is not None:
        check_prompt_table(config, table, folder)
    modules = load_modules(folder, config)
    return TowerParts(config.with_changes(backbone=name), tower, table, modules)
