"""Aligned models: the LoRA layers that `safevlm train sft`, `dpo` or `ppo` wrote, on the backbone that they were trained on.

A folder holds `alignment.json` (backbone, method, what was held out) and `lora/` in PEFT's own form. The backbone may be
an alignment itself: its LoRA layers are merged into the weights before the next go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safevlm import checkpoint
from safevlm.backbone import Backbone, HubOptions, language_linears, load_backbone, same_weights
from safevlm.config import is_number, read_json
from safevlm.errors import CheckpointError, brief
from safevlm.files import write_bytes

CONFIG = "alignment.json"


@dataclass(frozen=True)
class AlignmentConfig:
    """What an alignment was made of.

    Args:
        backbone: embedded name, absolute path or hub id; or the absolute path of an alignment.
        method: sft, dpo or ppo; on an alignment after its own, such as "sft+ppo".
        language_fingerprint: numbers that tell the backbone's LLM from another.
        split: names of the concepts and questions that were trained on and held out; empty for a preference file.
    """

    backbone: str
    method: str
    language_fingerprint: tuple[float, ...]
    split: Mapping[str, Any]


def save_aligned(folder: Path, backbone: Backbone, config: AlignmentConfig) -> None:
    """Write a backbone's LoRA layers and what they were made of."""
    checkpoint.save_lora(folder, backbone.model)
    write_bytes(folder / CONFIG, (json.dumps(asdict(config), indent=2) + "\n").encode())


def load_aligned(
    folder: str | Path,
    *,
    backbone: str | Path | None = None,
    hub: HubOptions | None = None,
    **backbone_kwargs: Any,
) -> Backbone:
    """Load a backbone and put an alignment's LoRA layers on its LLM.

    `safevlm.checkpoint.lora_disabled(loaded.model)` switches them off.

    Args:
        folder: as the training wrote it.
        backbone: where its backbone is now; None: where it was.
        hub, backbone_kwargs: `dtype`, `device_map`, `quantization_config`, ... as for `load_backbone`.

    Raises:
        CheckpointError: a file is missing or malformed, or the alignment is of another backbone.
        BackboneError: the backbone is not found, or is of an unknown family.
    """
    folder = Path(folder)
    config = load_alignment(folder)
    source = str(checkpoint.resolve(backbone or config.backbone))
    before, own = config.method.rpartition("+")[0], methods_of(source)
    if before != own:
        raise CheckpointError(
            f"{folder} was trained on a backbone aligned by {before or 'nothing'}, and {source} is aligned by {own or 'nothing'}; "
            "give its own backbone"
        )
    loaded = load_merged(source, hub=hub, **backbone_kwargs)
    if not same_weights(config.language_fingerprint, loaded.language_fingerprint):
        raise CheckpointError(
            f"{folder} was trained on another language model than {source}; give its own backbone"
        )
    checkpoint.load_lora(folder, loaded.model, language_linears(loaded.model))
    return loaded


def methods_of(source: str | Path) -> str:
    """By what a backbone is aligned, such as "sft" or "sft+ppo"; "" for one that is no alignment."""
    folder = Path(source)
    return load_alignment(folder).method if (folder / CONFIG).is_file() else ""


def load_merged(source: str | Path, *, hub: HubOptions | None = None, **backbone_kwargs: Any) -> Backbone:
    """Load a backbone without LoRA layers: one as it is, or an alignment with its layers merged into the weights.

    Merged weights answer as the layers beside them, but for rounding to the weights' dtype.

    Args:
        source: folder or hub id of a backbone; or the folder of an alignment.
        hub, backbone_kwargs: as for `load_backbone`.

    Raises:
        CheckpointError: an alignment that is damaged, of another backbone, or of a quantized one.
        BackboneError: the backbone is not found, or is of an unknown family.
    """
    if not methods_of(source):
        return load_backbone(source, hub=hub, **backbone_kwargs)
    loaded = load_aligned(source, hub=hub, **backbone_kwargs)
    checkpoint.merge_lora(loaded.model, source)
    return loaded


def load_alignment(folder: Path) -> AlignmentConfig:
    """Read and check `alignment.json`; raises CheckpointError with the key and the remedy."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}: it is no alignment; `safevlm train ppo` writes one")
    try:
        values = read_json(checkpoint.config_text(path))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CheckpointError(f"{path}: {error}") from error
    kinds: dict[str, type] = {"backbone": str, "method": str, "language_fingerprint": list, "split": dict}
    if not isinstance(values, dict) or set(values) != set(kinds):
        raise CheckpointError(
            f"{path}: needs the keys {', '.join(kinds)} and no others; restore it from the training's output"
        )
    for key, kind in kinds.items():
        if not isinstance(values[key], kind):
            raise CheckpointError(f"{path}: {key} is {brief(values[key])}, not a {kind.__name__}; restore it")
    numbers = values["language_fingerprint"]
    if not all(is_number(number) for number in numbers):
        raise CheckpointError(
            f"{path}: language_fingerprint holds {brief(numbers)}, not numbers alone; restore it"
        )
    return AlignmentConfig(values["backbone"], values["method"], tuple(numbers), values["split"])
