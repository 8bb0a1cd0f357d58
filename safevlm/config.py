"""SafetyConfig: what a checkpoint says of itself. A frozen dataclass <-> JSON, versioned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from safevlm.taxonomy import Taxonomy

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling of the level logits (Guo et al., arXiv 1706.04599).

    Args:
        temperature: level logits are divided by it; > 0.
        data: the data it was fitted on.
        samples: how many items that was.
    """

    temperature: float
    data: str
    samples: int

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"calibration temperature {self.temperature!r} is not above 0; fit it again")


@dataclass(frozen=True)
class SafetyConfig:
    """Sizes of the safety modules and the backbone they belong to.

    Args:
        taxonomy: levels and categories that the head tells apart.
        vision_dim: width of the vision features; set by `attach`.
        text_dim: width of the projector's output, tokens and head: that of the LLM's input embeddings,
            set by `SafeVLM.attach`. For a vision tower alone any; 0 takes `vision_dim`.
        hidden_dim: width of the projector's convolutions; 1024 in the paper (arXiv 2405.13581; the
            authors' code has 1088).
        depth: blocks per RegStage; 3 in the paper.
        num_tokens: safety tokens per set; 64 in the paper.
        num_heads: heads of the cross-attention; 8 in the paper.
        pool_grid: (h, w) that the projector pools to; None keeps the image's own grid.
        vision_layer: hidden state that is read, None for the tower's output; set by `attach`. For a
            vision tower alone any; "auto" takes its family's own.
        backbone: hub id, folder or embedded name of the backbone; empty when unknown.
        backbone_type: `config.model_type` of the backbone.
        tower_fingerprint: of the vision tower's weights; empty when not bound to one.
        prompt_fingerprint: of the LLM's input embeddings; empty for modules that read no prompts.
        calibration: how scores were calibrated, if they were.
        has_lora: whether a `lora/` folder belongs to the checkpoint.
        schema_version: of this file's form.
    """

    taxonomy: Taxonomy
    vision_dim: int = 0
    text_dim: int = 0
    hidden_dim: int = 1024
    depth: int = 3
    num_tokens: int = 64
    num_heads: int = 8
    pool_grid: tuple[int, int] | None = None
    vision_layer: int | Literal["auto"] | None = "auto"
    backbone: str = ""
    backbone_type: str = ""
    tower_fingerprint: tuple[float, ...] = ()
    prompt_fingerprint: tuple[float, ...] = ()
    calibration: Calibration | None = None
    has_lora: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def reads_prompts(self) -> bool:
        """Whether the modules were attached to a model with an LLM, whose embeddings their head reads."""
        return bool(self.prompt_fingerprint)

    def to_json(self) -> str:
        """The file's text; the inverse of `from_json`."""
        values = {**asdict(self), "taxonomy": self.taxonomy.to_dict()}
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> SafetyConfig:
        """Read a config; raises ValueError with the offending key and the remedy."""
        values = json.loads(text)
        if not isinstance(values, Mapping):
            raise ValueError("the config is not a JSON object; save it with `save_pretrained`")
        version = values.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise ValueError(
                f"schema_version is {version!r}, this safevlm reads up to {SCHEMA_VERSION}; "
                "run: pip install -U safevlm"
            )
        return cls._from_dict(dict(values))

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> SafetyConfig:
        known = {f.name: f for f in fields(cls)}
        if foreign := sorted(set(values) - set(known)):
            raise ValueError(f"foreign keys {foreign}; known are {sorted(known)}")
        if missing := sorted(set(known) - set(values)):
            raise ValueError(f"missing keys {missing}; save the checkpoint again with `save_pretrained`")
        for name in ("vision_dim", "text_dim", "hidden_dim", "depth", "num_tokens", "num_heads"):
            if type(values[name]) is not int or values[name] < 1:
                raise ValueError(f"{name} is {values[name]!r}, a whole number of at least 1 is needed")
        layer = values["vision_layer"]
        if layer not in (None, "auto") and type(layer) is not int:
            raise ValueError(f'vision_layer is {layer!r}, a whole number, null or "auto" is needed')
        values["taxonomy"] = Taxonomy.from_dict(values["taxonomy"])
        for name in ("tower_fingerprint", "prompt_fingerprint"):
            values[name] = tuple(float(x) for x in values[name])
        if values["pool_grid"] is not None:
            height, width = values["pool_grid"]
            values["pool_grid"] = (int(height), int(width))
        if values["calibration"] is not None:
            values["calibration"] = Calibration(**values["calibration"])
        return cls(**values)

    def with_changes(self, **changes: Any) -> SafetyConfig:
        """A copy with some fields changed."""
        return replace(self, **changes)
