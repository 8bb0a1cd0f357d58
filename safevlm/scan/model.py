"""What a scan scores with: a scorer in memory, or a checkpoint that is loaded where it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safevlm.policy import Policy
from safevlm.types import ReadText

if TYPE_CHECKING:
    from torch import Tensor

    from safevlm.backbone import Preprocessor
    from safevlm.config import SafetyConfig
    from safevlm.scorer import RiskScorer


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is loaded where and when it is needed; its hash and policy need no tower. Picklable.

    Args:
        name: embedded name, folder or hub id.
        backbone: folder or hub id of the backbone, in place of what the checkpoint says.
        chosen_policy: None for the default policy at the checkpoint's operating point.
        device: torch device.
        read_text: which images are read for writing; see `RiskScorer`.
    """

    name: str
    backbone: str | None = None
    chosen_policy: Policy | None = None
    device: str = "cpu"
    read_text: ReadText = "never"

    @cached_property
    def _folder(self) -> Path:
        from safevlm import checkpoint

        return checkpoint.fetch(self.name)

    @cached_property
    def config(self) -> SafetyConfig:
        """Of the modules; read once."""
        from safevlm import checkpoint

        return checkpoint.load_config(self._folder)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that scores depend on, 64 hex digits."""
        from safevlm import checkpoint  # not the scorer: a finished scan should not wait for its imports

        return _sha256(self.config, checkpoint.stored_tensors(self._folder))

    @cached_property
    def policy(self) -> Policy:
        """What turns scores into verdicts."""
        return self.chosen_policy or Policy(self.config.taxonomy, threshold=self.config.threshold)

    def load(self) -> RiskScorer:
        """The scorer, on the device; raises what `RiskScorer.from_pretrained` does."""
        from safevlm.scorer import RiskScorer

        return RiskScorer.from_pretrained(
            self.name,
            backbone=self.backbone,
            device_map=self.device,
            policy=self.policy,
            read_text=self.read_text,
        )

    def load_preprocessor(self) -> Preprocessor:
        """The preprocessing of the tower alone, without weights; picklable."""
        from safevlm.backbone import load_preprocessor
        from safevlm.binding import backbone_location

        return load_preprocessor(backbone_location(self.config, self.backbone))


def model_sha256(model: RiskScorer | Checkpoint) -> str:
    """Hash of the safety modules and of the tower, 64 hex digits; equal for a checkpoint and a scorer loaded from it."""
    if isinstance(model, Checkpoint):
        return model.sha256
    return _sha256(model.config, model.safety.state_dict())


def sees_one_view(model: RiskScorer | Checkpoint) -> bool:
    """Whether it is known to see every image as one view, so that a row holds all that it found."""
    from safevlm.backbone import FAMILIES, TOWERS

    family = {**FAMILIES, **TOWERS}.get(model.config.backbone_type or "")
    return family is not None and family.scales_whole


def _sha256(config: SafetyConfig, tensors: Mapping[str, Tensor]) -> str:
    """Of the modules' weights, and of the tower, whose fingerprint is in the config."""
    digest = hashlib.sha256(config.to_json().encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
