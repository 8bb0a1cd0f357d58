"""Setup of a benchmark: shape, device, precision and amounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch

from safevlm import checkpoint
from safevlm.backbone import Backbone, load_backbone
from safevlm.backbone.shapes import GUARD_SHAPES, SHAPES, OnevisionShape, Shape, random_backbone
from safevlm.config import SafetyConfig
from safevlm.guard import SafeVLM
from safevlm.policy import Policy
from safevlm.scorer import RiskScorer
from safevlm.taxonomy import Taxonomy

from .machine import device_name
from .results import Cell, Ratio

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
MINI = "safevlm-mini"
MINI_BASE = "safevlm-mini-base"
DEFAULT_SHAPES = {"cuda": "vit-l-14-336", "cpu": "vit-b-32"}
EMBEDDED = "mini"
TINY = "tiny"
TINY_MODULES = {"hidden_dim": 16, "depth": 1, "num_tokens": 4, "num_heads": 4}


@dataclass(frozen=True)
class Amounts:
    """Amounts of work per call.

    Args:
        score_batches: batch sizes of the row `score`.
        pipeline_images, pipeline_batch: images of a scan, and images per forward pass.
        generate_batches: batch sizes of the row `generate`.
        more_tokens: tokens decoded after the first, to time decoding.
        head_images, head_batch: rows of the training table, and rows per step.
        guard_images: images that both guards judge, in one batch.
        verdict_tokens: tokens that the generative guard writes per image.
        finished_shards: shards of the finished scan that is started again.
    """

    score_batches: tuple[int, ...]
    pipeline_images: int
    pipeline_batch: int
    generate_batches: tuple[int, ...]
    more_tokens: int
    head_images: int
    head_batch: int
    guard_images: int
    verdict_tokens: int
    finished_shards: int


ON_GPU = Amounts((1, 4, 16, 64, 256), 2048, 64, (1, 16), 32, 1024, 32, 16, 60, 1000)
ON_CPU = Amounts((1, 4, 16, 64, 256), 128, 32, (1, 16), 32, 64, 16, 1, 60, 1000)
IN_SECONDS = Amounts((1, 2), 6, 2, (2,), 4, 8, 4, 2, 4, 4)


@dataclass(frozen=True)
class Setup:
    """Setup of a benchmark; create it with `Setup.choose`.

    Args:
        shape: a name in `SHAPES`.
        device: device of the models.
        dtype: dtype of the backbones; the safety modules keep the dtype in which the library attaches them.
        seconds: time for the rounds of one cell, without warm-ups.
        amounts: amounts of work per call.
        modules: sizes of the safety modules that differ from the paper's.
    """

    shape: str
    device: torch.device
    dtype: torch.dtype
    seconds: float
    amounts: Amounts
    modules: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def choose(
        cls, shape: str | None, *, device: str | None, dtype: Precision = "auto", seconds: float = 5.0
    ) -> Setup:
        """Choose what is None or "auto" by the machine: the GPU if there is one, its shape, and bfloat16.

        Raises:
            ValueError: the shape or the type of device is unknown, or `seconds` is not positive.
        """
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if where.type not in DEFAULT_SHAPES:
            raise ValueError(f"device is {device}; the benchmark supports {' and '.join(DEFAULT_SHAPES)}")
        name = shape or DEFAULT_SHAPES[where.type]
        if name not in SHAPES:
            raise ValueError(f"unknown shape {name!r}; choose from {', '.join(SHAPES)}")
        if seconds <= 0:
            raise ValueError(f"seconds is {seconds:g}, but must be positive; the default is 5")
        if dtype == "auto":
            dtype = "bfloat16" if where.type == "cuda" else "float32"
        amounts = IN_SECONDS if name == TINY else ON_GPU if where.type == "cuda" else ON_CPU
        return cls(name, where, getattr(torch, dtype), seconds, amounts, _modules(name))

    @property
    def sizes(self) -> Shape:
        """Sizes of the shape's tower and LLM."""
        return SHAPES[self.shape]

    @property
    def guard_sizes(self) -> OnevisionShape:
        """Sizes of the generative guard: those of LLaVA-OneVision-0.5B, smaller for the tiny shape."""
        return GUARD_SHAPES[TINY if self.shape == TINY else "llava-onevision-0.5b"]

    @property
    def config(self) -> SafetyConfig:
        """Config of new safety modules: the paper's sizes with the tower's width, but for the mini and tiny shapes."""
        sizes = {"hidden_dim": self.sizes.vision_dim, **self.modules}
        return SafetyConfig(Taxonomy.preset("safevlm"), **sizes)

    @cached_property
    def mini(self) -> Backbone:
        """The embedded backbone, whose tokenizer and chat template the random models use."""
        return load_backbone(checkpoint.resolve(MINI_BASE), dtype=self.dtype)

    def tower_and_embeddings(self) -> Backbone:
        """A random model of the shape without the layers of the LLM, for rows that do not use them."""
        return random_backbone(
            self.sizes, processor=self.mini.processor, device=self.device, dtype=self.dtype, text_layers=0
        )

    def scorer(self) -> RiskScorer:
        """New safety modules on `tower_and_embeddings`, whose BatchNorms are folded as in a tower loaded by name."""
        scorer = attach(self.tower_and_embeddings(), self.config).scorer
        scorer.tower.fold_norms()
        return scorer

    def cell(
        self,
        row: str,
        quantity: str,
        *,
        batch: int | None,
        unit: Literal["images/s", "tokens/s", "ms"],
        ratio_of: Ratio,
        against: str,
        note: str = "",
    ) -> Cell:
        """A cell for one measurement on this device and shape."""
        return Cell(
            row=row,
            quantity=quantity,
            batch=batch,
            device=device_name(self.device),
            shape=self.shape,
            device_type=self.device.type,
            unit=unit,
            ratio_of=ratio_of,
            against=against,
            note=note,
        )


def _modules(shape: str) -> dict[str, int]:
    """Sizes of the safety modules of a shape that differ from the paper's."""
    if shape == EMBEDDED:
        config = checkpoint.load_config(checkpoint.fetch(MINI))
        return {name: getattr(config, name) for name in TINY_MODULES}
    return dict(TINY_MODULES) if shape == TINY else {}


def attach(backbone: Backbone, config: SafetyConfig) -> SafeVLM:
    """Attach new modules with a policy that allows every prompt, so that the LLM runs."""
    policy = Policy(config.taxonomy, off=frozenset(config.taxonomy.risky_categories))
    return SafeVLM.attach(backbone, config, policy=policy)
