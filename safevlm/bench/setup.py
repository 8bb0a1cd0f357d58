"""What a run of the benchmark is about: shape, device, precision, and how much of each thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch

from safevlm import checkpoint
from safevlm.backbone import Backbone, load_backbone
from safevlm.backbone.shapes import GUARD_SHAPES, SHAPES, LlavaShape, OnevisionShape, random_llava
from safevlm.config import SafetyConfig
from safevlm.guard import SafeVLM
from safevlm.policy import Policy
from safevlm.taxonomy import Taxonomy

from .machine import device_name
from .results import Cell, Ratio

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
MINI = "safevlm-mini"
MINI_BASE = "safevlm-mini-base"
DEFAULT_SHAPES = {"cuda": "vit-l-14-336", "cpu": "vit-b-32"}
TINY = "tiny"
TINY_MODULES = {"hidden_dim": 16, "depth": 1, "num_tokens": 4, "num_heads": 4}


@dataclass(frozen=True)
class Amounts:
    """How much is done in a call.

    Args:
        score_batches: batch sizes of the score row.
        pipeline_images, pipeline_batch: files of a scan, and images per pass.
        generate_batches: batch sizes of the generate row.
        more_tokens: decoded after the first, to time decoding.
        head_images, head_batch: rows of the training table, and of a step.
        guard_images: images that both guards judge, in one batch.
        verdict_tokens: that the generative guard writes per image.
        finished_shards: of the scan that is started again.
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
    """A run; make it with `Setup.choose`.

    Args:
        shape: a name in `SHAPES`.
        device: where the models are.
        dtype: of the backbones; the safety modules are as the library attaches them.
        seconds: for the rounds of one cell, warm-ups not counted.
        amounts: of what is done in a call.
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
        """Fill in what is None or auto: the GPU where there is one, its shape, bfloat16 on it.

        Raises:
            ValueError: an unknown shape or kind of device, or no time.
        """
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if where.type not in DEFAULT_SHAPES:
            raise ValueError(f"device is {device}; the benchmark knows {' and '.join(DEFAULT_SHAPES)}")
        name = shape or DEFAULT_SHAPES[where.type]
        if name not in SHAPES:
            raise ValueError(f"no shape {name!r}; there are {', '.join(SHAPES)}")
        if seconds <= 0:
            raise ValueError(f"seconds is {seconds:g}; a cell needs some time, 5 is the default")
        if dtype == "auto":
            dtype = "bfloat16" if where.type == "cuda" else "float32"
        tiny = name == TINY
        amounts = IN_SECONDS if tiny else ON_GPU if where.type == "cuda" else ON_CPU
        return cls(name, where, getattr(torch, dtype), seconds, amounts, dict(TINY_MODULES) if tiny else {})

    @property
    def sizes(self) -> LlavaShape:
        """The shape's widths."""
        return SHAPES[self.shape]

    @property
    def guard_sizes(self) -> OnevisionShape:
        """The widths of the generative guard; LLaVA-OneVision-0.5B's but for the tiny shape."""
        return GUARD_SHAPES[TINY if self.shape == TINY else "llava-onevision-0.5b"]

    @property
    def config(self) -> SafetyConfig:
        """Of fresh safety modules: the paper's sizes, whose hidden_dim is the tower's width; small for the tiny shape."""
        sizes = {"hidden_dim": self.sizes.vision["hidden_size"], **self.modules}
        return SafetyConfig(Taxonomy.preset("safevlm"), **sizes)

    @cached_property
    def mini(self) -> Backbone:
        """The embedded backbone, whose tokenizer and chat template the random models borrow."""
        return load_backbone(checkpoint.resolve(MINI_BASE), dtype=self.dtype)

    def tower_and_embeddings(self) -> Backbone:
        """A random LLaVA of the shape without the LLM's layers, for what needs none."""
        return random_llava(
            self.sizes, processor=self.mini.processor, device=self.device, dtype=self.dtype, text_layers=0
        )

    def guard(self) -> SafeVLM:
        """Fresh safety modules on `tower_and_embeddings`."""
        return attach(self.tower_and_embeddings(), self.config)

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
        """What the lines of one measurement share."""
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


def attach(backbone: Backbone, config: SafetyConfig) -> SafeVLM:
    """Fresh modules under a policy that lets every prompt through, so that the LLM runs."""
    policy = Policy(config.taxonomy, off=frozenset(config.taxonomy.risky_categories))
    return SafeVLM.attach(backbone, config, policy=policy)
