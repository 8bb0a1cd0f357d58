"""Names -> who is measured: a guard, its plain backbone, an alignment, or any model of transformers."""

from __future__ import annotations

from pathlib import Path

from safevlm import checkpoint
from safevlm.aligned import load_aligned, load_alignment, methods_of
from safevlm.backbone import PlainModel, load_plain
from safevlm.guard import SafeVLM
from safevlm.steering import Direction, VLMGuard

from .targets import GuardTarget, PlainTarget, version_of


def load_guard_target(
    model: str | Path, *, guard: bool = True, steer: str | Path | None = None, device: str | None = None
) -> tuple[GuardTarget, str]:
    """Safety modules on their backbone, and what tells them apart from others of the same name (`version` of `ask`).

    Args:
        model: name of an embedded model, folder or hub id of safety modules.
        guard: False: the plain backbone answers.
        steer: folder of a direction, along which VLM-Guard steers the answers.
        device: of torch; None: the CPU.

    Raises:
        CheckpointError: safety modules or a direction are missing, damaged, or of another backbone.
        BackboneError: the backbone is not found.
    """
    folder = checkpoint.fetch(model)
    parts: list[str | Path] = [folder, checkpoint.resolve(checkpoint.load_config(folder).backbone)]
    name = f"{model}, {'guarded' if guard else 'plain backbone'}"
    methods: list[VLMGuard] = []
    if steer is not None:
        name, parts = f"{name}, steered by {steer}", [*parts, steer]
        methods = [VLMGuard(Direction.load(steer), layers="chosen", steps="prefill")]
    loaded = SafeVLM.from_pretrained(model, device_map=device)
    target = GuardTarget(loaded, name, enabled=guard, methods=methods)
    return target, "; ".join((name, *map(version_of, parts)))


def load_plain_target(backbone: str | Path, *, device: str | None = None) -> tuple[PlainTarget, str]:
    """A model without a guard, and what tells it apart from others of the same name.

    Args:
        backbone: folder that `safevlm train sft`, `dpo` or `ppo` wrote; or the name of an embedded model, folder or hub id
            of any image-text-to-text model of transformers.
        device: of torch; None: the CPU.

    Raises:
        CheckpointError: an alignment that is damaged, or of another backbone.
        BackboneError: no such model.
    """
    name = str(backbone)
    parts = [checkpoint.resolve(backbone)]
    while methods_of(parts[-1]):  # an alignment may go on from another
        parts.append(checkpoint.resolve(load_alignment(Path(parts[-1])).backbone))
    version = "; ".join(map(version_of, parts))
    if len(parts) == 1:
        return PlainTarget(load_plain(parts[0], device_map=device), name), version
    loaded = load_aligned(backbone, device_map=device)
    return PlainTarget(PlainModel(loaded.model, loaded.processor, name=name), name), version
