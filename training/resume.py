"""What a run was made with, kept in its checkpoints, and compared when a run resumes from one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from safevlm.backbone import same_weights
from safevlm.errors import CheckpointError
from safevlm.labelled import LabelledRow

KEY = "safevlm_run"
"""Where a Lightning checkpoint keeps the record."""
STEPS = "optimizer steps (trainer.max_epochs, trainer.max_steps)"
"""The one entry that may grow: a run may be trained for longer."""


def rows_digest(rows: Sequence[LabelledRow]) -> str:
    """How many rows, and a hash of their contents in order: images, texts and labels, not where they lie."""
    digest = hashlib.sha256()
    for row in rows:
        more = [row.pair, row.read_text] if row.pair or row.read_text else []
        content = json.dumps([row.key, row.prompt, row.response, row.level, row.category, *more])
        digest.update(content.encode() + b"\n")
    return f"{len(rows)} rows {digest.hexdigest()[:12]}"


def tensors_digest(tensors: Iterable[Tensor]) -> str:
    """A hash of the tensors' bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().float().numpy().tobytes())
    return digest.hexdigest()[:12]


def text_digest(values: Any) -> str:
    """A hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def refuse_changes(saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Compare the record of a checkpoint with that of the run that resumes from it.

    Raises:
        CheckpointError: the checkpoint has no record, or entries differ; names each with both values.
    """
    if saved is None:
        raise CheckpointError(
            "the checkpoint does not say which options and rows its run had, so a resumed run could repeat or miss "
            "rows; start the run again without --ckpt_path"
        )
    names = dict.fromkeys([*saved, *now])
    differ = [name for name in names if not _same(name, saved.get(name), now.get(name))]
    if differ:
        listed = "; ".join(f"{name} was {saved.get(name)}, is now {now.get(name)}" for name in differ)
        raise CheckpointError(
            f"the run of this checkpoint was made with other options or rows: {listed}. Going on would repeat or miss "
            "rows, or train something else; resume with the options it was made with, or start a new run without "
            "--ckpt_path"
        )


def _same(name: str, saved: Any, now: Any) -> bool:
    if name == STEPS and isinstance(saved, int) and isinstance(now, int):
        return now >= saved
    if isinstance(saved, Sequence) and isinstance(now, Sequence) and name.endswith("fingerprint"):
        return same_weights(tuple(saved), tuple(now))
    return bool(saved == now)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest `last` in a run's folder of checkpoints; None where there is none."""
    found = sorted(folder.glob("last*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1] if found else None


def set_aside(folder: Path) -> Path | None:
    """Rename a folder that holds an earlier run's checkpoints, so that none is taken for a new run's.

    Returns:
        The folder's new name; None where there was nothing to set aside.
    """
    if not any(folder.glob("*.ckpt")):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside
