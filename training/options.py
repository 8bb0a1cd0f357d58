"""Options that the stages have in common, grouped; defaults are the paper's (arXiv 2405.13581) where it has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from safevlm.config import SafetyConfig
from safevlm.taxonomy import Taxonomy

from .cache import Precision


@dataclass(frozen=True)
class Sizes:
    """Fresh safety modules; not used where a checkpoint is continued, which has its own.

    Args:
        taxonomy: preset (safevlm, safevlm-mini, llavaguard, unsafebench, openai) or path of a YAML file.
        hidden_dim: channels of the projector's convolutions; 1024 (the authors' code has 1088).
        depth: blocks per stage of the projector; 3 in the paper.
        num_tokens: safety tokens per set; 64 in the paper.
        num_heads: heads of the attention, a divisor of the LLM's width; 8 in the paper.
        pool_grid: (height, width) in patches that the projector pools to; None keeps the image's grid.
    """

    taxonomy: str = "safevlm"
    hidden_dim: int = 1024
    depth: int = 3
    num_tokens: int = 64
    num_heads: int = 8
    pool_grid: tuple[int, int] | None = None

    def load_taxonomy(self) -> Taxonomy:
        """The preset, or the file where the name ends in .yaml; raises ValueError for neither."""
        if self.taxonomy.endswith((".yaml", ".yml")):
            return Taxonomy.from_yaml(self.taxonomy)
        return Taxonomy.preset(self.taxonomy)

    def config(self) -> SafetyConfig:
        """What `SafeVLM.attach` takes."""
        return SafetyConfig(
            self.load_taxonomy(),
            hidden_dim=self.hidden_dim,
            depth=self.depth,
            num_tokens=self.num_tokens,
            num_heads=self.num_heads,
            pool_grid=self.pool_grid,
        )


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up and cosine decay to 0.

    Args:
        lr: highest learning rate; 1e-5 in both stages of the paper.
        warmup_steps: optimizer steps of warm-up; None takes the stage's own (paper: 20 in stage 1, 300 in
            stage 2). At most half of the run's steps are used.
        weight_decay: 0, as in LLaVA's recipes.
        betas: of Adam; (0.9, 0.999).
    """

    lr: float = 1e-5
    warmup_steps: int | None = None
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise ValueError(f"schedule.lr is {self.lr}; a learning rate above 0 is needed to train anything")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"schedule.warmup_steps is {self.warmup_steps}; at least 0 is needed")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"schedule.weight_decay is {self.weight_decay}; at least 0 is needed")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"schedule.betas are {self.betas}; values in [0, 1) are needed")


@dataclass(frozen=True)
class Loss:
    """L_LM + weight * (CE_level + CE_category), each a mean over the rows of the batch.

    Args:
        weight: of the classification terms; 10 in the authors' code.
        class_weights: "balanced" counts each class by n / (classes x its rows), of the rows of an
            epoch; None counts each row alike.
        prompt_probability: fraction of the rows whose prompt the head reads in training, in [0, 1]; the
            others are scored from the image alone, so that one head does both.
    """

    weight: float = 10.0
    class_weights: Literal["balanced"] | None = None
    prompt_probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"loss.weight is {self.weight}; at least 0 is needed")
        if not 0 <= self.prompt_probability <= 1:
            raise ValueError(
                f"loss.prompt_probability is {self.prompt_probability}, a fraction in [0, 1] is needed"
            )


@dataclass(frozen=True)
class Operating:
    """What is chosen on the tune rows after training, with the weights that are written; training does not see it.

    Args:
        false_positive_rate: the share of the safe tune rows that the operating point flags at most, in (0, 1). Needs
            3 / false_positive_rate safe tune rows.
        prior: the share of risky images where the scores will be used, in (0, 1), which calibrated scores then assume;
            None: the tune rows' own.
        reading_category: category of images that hold writing, for which a reading point (OCR) is chosen; None: none is.
        reading_recall: the share of that category's tune rows that are read at least, in (0, 1).
        keep: whether nothing is chosen, and calibration and thresholds of the checkpoint that is continued stay: for a
            few rows that correct it.
    """

    false_positive_rate: float = 0.03
    prior: float | None = None
    reading_category: str | None = None
    reading_recall: float = 0.95
    keep: bool = False

    def __post_init__(self) -> None:
        if self.keep and (self.prior is not None or self.reading_category is not None):
            raise ValueError(
                "operating.keep chooses nothing, so operating.prior and operating.reading_category have no effect; leave "
                "out either"
            )
        for name in ("false_positive_rate", "prior", "reading_recall"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"operating.{name} is {value}, a number between 0 and 1 is needed")

    def check_fits(self, taxonomy: Taxonomy) -> None:
        """Raise ValueError unless `reading_category` is one of the taxonomy."""
        if self.reading_category not in (None, *taxonomy.category_names):
            raise ValueError(
                f"operating.reading_category is {self.reading_category!r}; taxonomy {taxonomy.name} has "
                f"{', '.join(taxonomy.category_names)}"
            )


@dataclass(frozen=True)
class Cache:
    """Where vision features are kept.

    Args:
        folder: of the cache; None takes ~/.cache/safevlm/features/<tower>. LLaVA-1.5 needs 1.2 MB per image.
        precision: float16 (relative error up to 0.05 %) or float32 (twice the size).
        batch_size: images per pass of the tower while the cache is filled.
        dtype: that the tower computes in while the cache is filled: auto, that of the backbone, or bfloat16 with folded
            BatchNorms (relative error about 1 %), several times as quick on CPUs with AMX or AVX512-BF16.
    """

    folder: str | None = None
    precision: Precision = "float16"
    batch_size: int = 32
    dtype: Literal["auto", "bfloat16"] = "auto"


SIZES, SCHEDULE, LOSS, OPERATING, CACHE = Sizes(), Schedule(), Loss(), Operating(), Cache()
"""The defaults."""
