"""Lightning checkpoints with trained weights alone, and the record of the run that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from safevlm.errors import CheckpointError

from .resume import KEY, refuse_changes


def keep_trained(
    checkpoint: dict[str, Any], trained: Mapping[str, Tensor], record: Mapping[str, Any]
) -> None:
    """Drop frozen weights from a checkpoint that is about to be saved, and add the run's record."""
    checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
    checkpoint[KEY] = record


def add_frozen(
    checkpoint: dict[str, Any],
    trained: Mapping[str, Tensor],
    record: Mapping[str, Any],
    state: Mapping[str, Tensor],
) -> None:
    """Check a checkpoint that a run resumes from, and add the frozen weights that it was saved without.

    Args:
        checkpoint: as it was loaded; changed in place.
        trained: name -> parameter of all that this run trains.
        record: of this run.
        state: the module's whole state.

    Raises:
        CheckpointError: options or rows of the run, or names or sizes of the weights, differ from this run's.
    """
    refuse_changes(checkpoint.get(KEY), record)
    saved = checkpoint["state_dict"]
    for name in sorted(set(saved) ^ set(trained)):
        problem = "is missing from" if name in trained else "is foreign in"
        raise CheckpointError(
            f"the key {name!r} {problem} the checkpoint; resume with the options it was made with"
        )
    for name, value in saved.items():
        if value.shape != trained[name].shape:
            raise CheckpointError(
                f"{name!r} has size {tuple(value.shape)} in the checkpoint, {tuple(trained[name].shape)} "
                "here; resume with the options it was made with"
            )
    checkpoint["state_dict"] = {**state, **saved}
