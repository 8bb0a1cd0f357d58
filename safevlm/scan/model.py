"""What scores, and how it is told from others before it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from safevlm.policy import Policy
from safevlm.types import RiskAssessment

if TYPE_CHECKING:
    from torch import Tensor

    from safevlm.config import SafetyConfig
    from safevlm.scorer import Heatmap, RiskScorer


class Preprocessor(Protocol):
    """What makes a tower's inputs of pictures."""

    def preprocess(self, images: Sequence[Image.Image], /) -> Any:
        """RGB images -> what `Scorer.assess_inputs` takes; called from several threads."""
        ...


class Scorer(Preprocessor, Protocol):
    """What turns pictures into risks; `RiskScorer` is one."""

    def assess_inputs(
        self, inputs: Any, prompts: Sequence[str] | None = None, /, *, heatmap: Heatmap = False
    ) -> Sequence[RiskAssessment]:
        """One assessment per image, in order; with "flagged", heatmaps of those that are not safe."""
        ...


class Model(Protocol):
    """A scorer that may not be loaded yet. Picklable.

    Args:
        name: for people.
        sha256: of everything that scores depend on, 64 hex digits.
        policy: what turns its scores into verdicts.
        device: where it scores, as torch names it.
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def device(self) -> str: ...

    def load(self) -> Scorer:
        """The scorer, ready to score."""
        ...

    def preprocessor(self) -> Preprocessor:
        """The scorer's preprocessing alone, without weights; picklable."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A scorer that is in memory, for the local engine."""

    scorer: RiskScorer

    @property
    def name(self) -> str:
        return self.scorer.name

    @cached_property
    def sha256(self) -> str:
        return model_sha256(self.scorer.config, self.scorer.safety.state_dict())

    @property
    def policy(self) -> Policy:
        return self.scorer.policy

    @property
    def device(self) -> str:
        return str(self.scorer.tower.device)

    def load(self) -> Scorer:
        return self.scorer

    def preprocessor(self) -> Preprocessor:
        raise ValueError("a scorer in memory stays in its process; scan on Ray with Checkpoint(name)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is loaded where and when it is needed; its hash and policy need no tower.

    Args:
        name: embedded name, folder or hub id.
        backbone: folder or hub id of the backbone, in place of what the checkpoint says.
        chosen_policy: None for the default policy of the checkpoint's taxonomy.
        device: torch device.
    """

    name: str
    backbone: str | None = None
    chosen_policy: Policy | None = None
    device: str = "cpu"

    @cached_property
    def _folder(self) -> Path:
        from safevlm import checkpoint

        return checkpoint.fetch(self.name)

    @cached_property
    def _config(self) -> SafetyConfig:
        from safevlm import checkpoint

        return checkpoint.load_config(self._folder)

    @cached_property
    def sha256(self) -> str:
        from safevlm import checkpoint  # not the scorer: a finished scan should not wait for its imports

        return model_sha256(self._config, checkpoint.stored_tensors(self._folder))

    @cached_property
    def policy(self) -> Policy:
        return self.chosen_policy or Policy(self._config.taxonomy)

    def load(self) -> Scorer:
        from safevlm.scorer import RiskScorer

        return RiskScorer.from_pretrained(
            self.name, backbone=self.backbone, device_map=self.device, policy=self.policy
        )

    def preprocessor(self) -> Preprocessor:
        from safevlm.scorer import RiskScorer

        tower = RiskScorer.from_pretrained(self.name, backbone=self.backbone).tower
        tower.module = tower.module.to("meta")
        return tower


def model_sha256(config: SafetyConfig, tensors: Mapping[str, Tensor]) -> str:
    """Hash of the safety modules and of the tower, whose fingerprint is in the config."""
    digest = hashlib.sha256(config.to_json().encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
