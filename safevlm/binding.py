"""What binds safety modules to a backbone: sizes, fingerprints, precision; modules built and loaded to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from safevlm import checkpoint
from safevlm.backbone import (
    HubOptions,
    Layer,
    PromptTable,
    VisionTower,
    load_prompt_table,
    load_tower,
    safety_dtype,
    same_weights,
    wrap_tower,
)
from safevlm.config import SafetyConfig
from safevlm.errors import CheckpointError
from safevlm.modules import SafetyDims, SafetyModules


def bind(
    config: SafetyConfig,
    tower: VisionTower,
    *,
    name: str,
    model_type: str | None = None,
    table: PromptTable | None = None,
) -> SafetyConfig:
    """The config of fresh, untrained modules, with what depends on the backbone filled in.

    Args:
        name, model_type: of the backbone, the name where the config has none; None: the tower's type.
        table: reads prompts; None: a vision tower alone. Its modules read no prompts, and are as wide as
            `config.text_dim` says, or as the tower's features where that is 0.
    """
    return config.with_changes(
        vision_dim=tower.dim,
        text_dim=config.text_dim or tower.dim if table is None else int(table.weight.shape[1]),
        vision_layer=tower.layer,
        backbone=config.backbone or name,
        backbone_type=model_type or tower.model_type,
        tower_fingerprint=tower.fingerprint,
        prompt_fingerprint=() if table is None else table.fingerprint,
        untrained=True,
    )


def build_modules(config: SafetyConfig) -> SafetyModules:
    """Fresh safety modules of the config's sizes."""
    return SafetyModules(
        SafetyDims(
            vision_dim=config.vision_dim,
            dim=config.text_dim,
            text_dim=config.text_dim if config.reads_prompts else None,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            num_tokens=config.num_tokens,
            num_levels=len(config.taxonomy.levels),
            num_categories=len(config.taxonomy.categories),
            num_heads=config.num_heads,
            pool_grid=config.pool_grid,
        )
    )


def load_modules(
    folder: Path,
    config: SafetyConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SafetyModules:
    """The modules of a checkpoint, in eval mode; sizes are checked before a tensor is read.

    Raises:
        CheckpointError: the file's tensors are not those of the config's sizes.
    """
    _check_sizes(config, checkpoint.stored_sizes(folder), folder)
    with torch.device("meta"):
        modules = build_modules(config)
    sizes = {key: tensor.shape for key, tensor in modules.state_dict().items()}
    tensors = checkpoint.load_tensors(folder, sizes, dtype=dtype, device=device)
    modules.load_state_dict(tensors, strict=True, assign=True)
    return modules.eval()


def _check_sizes(config: SafetyConfig, stored: dict[str, torch.Size], folder: Path) -> None:
    """Raise CheckpointError for sizes that no module of the file's tensors has, before any module is built."""
    numbers = sum(size.numel() for size in stored.values())
    for key, most in (
        *((key, numbers) for key in ("vision_dim", "text_dim", "hidden_dim", "num_tokens", "num_heads")),
        ("depth", len(stored)),
    ):
        if (found := getattr(config, key)) > most:
            raise CheckpointError(
                f"{folder / checkpoint.CONFIG}: {key} is {found}, more than {checkpoint.WEIGHTS} has numbers for; "
                "the files do not belong together, restore both from one save"
            )


def module_device_and_dtype(tower: VisionTower, dtype: torch.dtype | str | None = None) -> dict[str, Any]:
    """Device and dtype of the modules of a tower; the dtype is `safety_dtype`'s unless one is asked for."""
    return {"device": tower.device, "dtype": safety_dtype(tower.dtype, tower.device, asked=dtype)}


def backbone_location(config: SafetyConfig, given: str | Path | None) -> str | Path:
    """Where the backbone is; raises CheckpointError where nothing says so."""
    if not (given or config.backbone):
        raise CheckpointError(
            "the checkpoint names no backbone, since its modules were attached to a model in memory; "
            "give backbone=..."
        )
    return checkpoint.resolve(given or config.backbone)


def named_backbone(name: str | Path) -> str | Path:
    """Where a backbone is, given its own name, or that of a checkpoint on this machine whose modules belong to it.

    Raises:
        CheckpointError: the checkpoint's config is not valid, or names no backbone.
    """
    location = checkpoint.resolve(name)
    if not (Path(location) / checkpoint.CONFIG).is_file():
        return location
    return backbone_location(checkpoint.load_config(Path(location)), None)


def open_tower(
    source: str | Path | nn.Module | VisionTower,
    *,
    layer: Layer,
    image_processor: Any,
    hub: HubOptions,
    **tower_kwargs: Any,
) -> VisionTower:
    """A tower from where it is, or from memory; the arguments of `load_tower` are for the former alone."""
    if isinstance(source, (str, Path)):
        loaded = load_tower(checkpoint.resolve(source), layer=layer, hub=hub, **tower_kwargs)
        loaded.fold_norms()  # it scores, and no LLM reads its features
        return loaded
    if tower_kwargs:
        raise ValueError(
            f"{sorted(tower_kwargs)} are for towers that are loaded; this one is in memory, change it there"
        )
    tower = wrap_tower(source, image_processor, layer=layer) if isinstance(source, nn.Module) else source
    if layer not in ("auto", tower.layer):
        raise ValueError(
            f"vision_layer is {layer}, the tower is read at {tower.layer}; wrap it with that layer"
        )
    return tower


def check_tower(config: SafetyConfig, tower: VisionTower, folder: Path) -> None:
    """Raise CheckpointError where the tower is not the one that the modules were trained on."""
    remedy = f"load it with the backbone it was trained on ({config.backbone!r}), or train the modules again"
    if config.backbone in checkpoint.embedded():
        remedy = (
            f"the embedded {config.backbone!r} changes from one safevlm to another: load the checkpoint with the version "
            "of safevlm that wrote it, or train the modules again"
        )
    for key, own, found in (
        ("vision_dim", config.vision_dim, tower.dim),
        ("vision_layer", config.vision_layer, tower.layer),
    ):
        if own != found:
            raise CheckpointError(
                f"{folder / checkpoint.CONFIG}: {key} is {own!r}, the backbone's is {found!r}; {remedy}"
            )
    if not same_weights(config.tower_fingerprint, tower.fingerprint):
        raise CheckpointError(
            f"{folder / checkpoint.CONFIG}: tower_fingerprint is not that of the backbone's vision tower; {remedy}"
        )


def open_prompt_table(
    config: SafetyConfig, location: str | Path, *, name: str, hub: HubOptions
) -> PromptTable:
    """The tokenizer and embeddings of the LLM that the modules were trained on.

    Args:
        location: of the backbone.
        name: of the checkpoint, for messages.

    Raises:
        BackboneError: the LLM's files are not found.
        CheckpointError: the modules read no prompts, or were trained on another LLM.
    """
    if not config.reads_prompts:
        raise CheckpointError(
            f"{name or 'the scorer'}: its modules were attached to a vision tower alone and read no "
            "prompts; score images without prompts, or attach them to a model with an LLM"
        )
    table = load_prompt_table(checkpoint.resolve(location), hub=hub)
    check_prompt_table(config, table, location)
    return table


def check_prompt_table(config: SafetyConfig, table: PromptTable, location: str | Path) -> None:
    """Raise CheckpointError where the LLM's embeddings are not those that the modules were trained on."""
    remedy = f"use the backbone that the modules were trained on ({config.backbone!r}), or train them again"
    if not config.reads_prompts:
        raise CheckpointError(
            f"{location}: its modules were attached to a vision tower alone and know no LLM; load them with "
            "RiskScorer, or attach fresh ones to the whole model and train those"
        )
    width = int(table.weight.shape[1])
    if width != config.text_dim:
        raise CheckpointError(
            f"{location}: the backbone's LLM has text_dim {width}, the modules have {config.text_dim}; {remedy}"
        )
    if not same_weights(config.prompt_fingerprint, table.fingerprint):
        raise CheckpointError(
            f"{location}: the input embeddings of its LLM are not those of prompt_fingerprint; {remedy}"
        )
