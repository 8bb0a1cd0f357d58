"""Stage 1: the head, set A and the projector from cached features; set B through the frozen LLM.

L = L_LM + weight * (CE_level + CE_category). The CE terms need the vision tower once per image and no
LLM; L_LM reaches set B of the tokens alone. Without `train_tokens` no tensor of the LLM is read but
its input embeddings, with which the head reads prompts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from safevlm import checkpoint as checkpoints
from safevlm.backbone import (
    PromptTable,
    VisionTower,
    is_timm,
    load_model_type,
    load_prompt_table,
    load_tower,
)
from safevlm.binding import bind, build_modules, check_prompt_table, check_tower, load_modules
from safevlm.config import SafetyConfig
from safevlm.errors import BackboneError, CheckpointError, DataError
from safevlm.guard import SafeVLM, lm_losses
from safevlm.labelled.table import Needs
from safevlm.modules import SafetyModules
from safevlm.viewing import ViewOutput, head_output

from .cache import FeatureCache, cache_identity
from .datamodule import Batch
from .draw import draw
from .fill import Filler
from .lengths import check_lengths
from .options import CACHE, LOSS, SCHEDULE, SIZES, Cache, Loss, Schedule, Sizes, backbone_place
from .ranks import Ranks
from .recipe import Recipe, open_guard

LOGGER = logging.getLogger(__name__)
CACHES = Path("~/.cache/safevlm/features")
STAND_IN = Image.new("RGB", (1, 1))
"""For a backbone that needs to know that there is an image, and gets its features from the cache."""


class HeadTraining(Recipe):
    """Stage 1 of training.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model; without `train_tokens` a vision
            tower alone will do, such as `timm:NAME`, whose head then reads no prompts.
        checkpoint: folder of safety modules to continue; its own backbone where `backbone` is not given.
        output_dir: folder that the trained modules are written to, for `SafeVLM.from_pretrained`.
        overwrite: whether output_dir may hold a checkpoint already.
        train_tokens: whether set B is trained with L_LM through the frozen LLM (needs responses); False
            reads no LLM.
        lm_fraction: share of the rows, drawn anew each epoch, that go through the LLM, in (0, 1].
        gradient_checkpointing: whether the LLM's layers are run again in the backward pass, which takes about a
            third more time and a fraction of the memory; without `train_tokens` there is no such pass.
        dtype: of the frozen backbone; auto takes the files' own.
        sizes: of fresh modules.
        schedule: learning rate in AdamW, warm-up (20 steps) and decay.
        loss: weights of the terms.
        cache: of the vision features.
    """

    default_warmup = 20
    needs = Needs(image=True)

    def __init__(
        self,
        backbone: str | None = None,
        checkpoint: str | None = None,
        output_dir: str = "safevlm-head",
        overwrite: bool = False,
        train_tokens: bool = True,
        lm_fraction: float = 1.0,
        gradient_checkpointing: bool = False,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        sizes: Sizes = SIZES,
        schedule: Schedule = SCHEDULE,
        loss: Loss = LOSS,
        cache: Cache = CACHE,
    ) -> None:
        super().__init__(
            backbone,
            checkpoint,
            output_dir=output_dir,
            overwrite=overwrite,
            sizes=sizes,
            schedule=schedule,
            loss=loss,
        )
        if not 0 < lm_fraction <= 1:
            raise ValueError(
                f"lm_fraction is {lm_fraction}, a share in (0, 1] is needed; train_tokens switches L_LM off"
            )
        if not train_tokens and loss.weight == 0:
            raise ValueError(
                "loss.weight is 0 and train_tokens false: no term of the loss is left to train with"
            )
        self.train_tokens = self.trains_answers = train_tokens
        self.lm_fraction, self.dtype_name = lm_fraction, dtype
        self.gradient_checkpointing, self.cache_options = gradient_checkpointing, cache
        self.guard: SafeVLM | None = None
        self.own: SafetyModules | None = None
        self.tower: VisionTower
        self.features: FeatureCache
        self.prompt_table: PromptTable | None

    @property
    def safety(self) -> SafetyModules:
        """The modules, inside the guard where there is one."""
        found = self.own if self.guard is None else self.guard.safety
        assert found is not None, "the parts are loaded in setup"
        return found

    def build(self) -> None:
        """The whole model where tokens are trained, else tower, prompt embeddings and modules."""
        if self.start is not None and checkpoints.load_config(checkpoints.fetch(self.start)).has_lora:
            raise CheckpointError(
                f"{self.start} has LoRA layers, which stage 1 would lose; continue it with the joint stage"
            )
        if self.train_tokens and is_timm(self.backbone_name or ""):
            raise BackboneError(
                f"{self.backbone_name} has no LLM that the safety tokens could speak to; train the head alone "
                "(--model.train_tokens false)"
            )
        if self.train_tokens:
            self.guard = open_guard(
                self.backbone_name, self.start, self.sizes, self.dtype_name, device=self.root_device
            )
            self.config, self.tower = self.guard.config, self.guard.backbone.tower
            self.prompt_table = self.guard.backbone.prompt_table
        else:
            self._build_without_llm()
        self.safety.requires_grad_(True)
        self.safety.tokens.prompt.requires_grad_(self.train_tokens)
        if self.safety.head.prompt is not None:
            self.safety.head.prompt.requires_grad_(self.loss.prompt_probability > 0)

    def _build_without_llm(self) -> None:
        folder = None if self.start is None else checkpoints.fetch(self.start)
        config = self.sizes.config() if folder is None else checkpoints.load_config(folder)
        place, name = backbone_place(self.backbone_name or config.backbone)
        dtype = None if self.dtype_name == "auto" else getattr(torch, self.dtype_name)
        self.tower = load_tower(place, dtype=dtype, layer=config.vision_layer, device_map=self.root_device)
        alone = self.tower.family.alone
        self.prompt_table = None if alone else load_prompt_table(place)
        if folder is None:
            kind = None if alone else load_model_type(place)
            self.config = bind(config, self.tower, name=name, model_type=kind, table=self.prompt_table)
            self.own = build_modules(self.config)
        else:
            check_tower(config, self.tower, folder)
            if self.prompt_table is not None:
                check_prompt_table(config, self.prompt_table, folder)
            self.config, self.own = config.with_changes(backbone=name), load_modules(folder, config)

    def check_rows(self) -> None:
        """With `train_tokens` the rows that have a response go through the LLM."""
        if self.guard is not None:
            check_lengths(self.data, self.guard, hint=lambda row: "", only_answered=True)

    def prepare(self) -> None:
        """Fill the cache with every image of the run; the processes share the work."""
        self.data.decode = self.guard is not None and not self.tower.family.reads_prepared
        if self.train_tokens and not any(row.response.strip() for row in self.data.train_rows):
            raise DataError(
                f"{self.data.table}, column response: is empty in every row, and train_tokens needs answers; "
                "add them, or train the head alone (--model.train_tokens false)"
            )
        self.tower.module.to(self.trainer.strategy.root_device)
        states = 1 if self.guard is None else self.tower.states
        identity = cache_identity(self.tower, self.cache_options.precision, states=states)
        own = f"{identity['tower_sha256'][:16]}{self.tower.layer}" + (f"x{states}" if states > 1 else "")
        folder = Path(self.cache_options.folder or CACHES / own)
        self.features = FeatureCache(folder.expanduser(), identity)
        filler = Filler(
            self.features,
            self.tower,
            ranks=Ranks.of(self.trainer),
            batch_size=self.cache_options.batch_size,
            silent=self.global_rank > 0 or self.trainer.progress_bar_callback is None,
        )
        filler.fill({row.key: row for row in self.data.rows})

    def scores(self, batch: Batch, *prompts: list[str]) -> tuple[list[ViewOutput], list[int]]:
        """The head on cached features; every row has an image."""
        views = self.features.read(batch["keys"], channels=self.tower.dim)
        outputs = [
            head_output(self.safety, views, table=self.prompt_table, prompts=texts) for texts in prompts
        ]
        return outputs, list(range(len(batch["keys"])))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step's loss."""
        outputs, rows = self.scores(batch, self.head_prompts(batch))
        return self.finish_step(batch, self._lm_loss(batch), self.head_loss(outputs[0], rows, batch))

    def _lm_loss(self, batch: Batch) -> Tensor:
        """Sum over the drawn rows that have an answer, divided by what all rows would give."""
        rows = list(self._drawn(batch))
        if self.guard is None or not rows:
            return torch.zeros((), device=self.device)
        losses = self.answer_losses(batch, rows)
        return losses.sum() / (len(batch["keys"]) * self.lm_fraction)

    def answer_losses(self, batch: Batch, rows: list[int]) -> Tensor:
        """L_LM of these rows through the frozen LLM, on cached features; (len(rows),) in nats per token."""
        assert self.guard is not None, "rows are drawn for the LLM where there is one"
        return lm_losses(
            self.guard.backbone,
            self.safety,
            [batch["images"][row] or STAND_IN for row in rows],
            [batch["prompts"][row] for row in rows],
            [batch["responses"][row] for row in rows],
            passed=self.tower.unpack(self.features.read([batch["keys"][row] for row in rows])),
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def answered(self, batch: Batch) -> list[int]:
        """As large a share of the tune rows as goes through the LLM in training."""
        numbers = batch["index"].tolist()
        return [
            row
            for row in super().answered(batch)
            if draw(self.data.seed, "tune-lm", numbers[row]) < self.lm_fraction
        ]

    def own_options(self) -> dict[str, Any]:
        """Tokens, their share of the rows, and how features are kept."""
        return {
            "model.train_tokens": self.train_tokens,
            "model.lm_fraction": self.lm_fraction,
            "model.dtype": self.dtype_name,
            "model.cache.precision": self.cache_options.precision,
        }

    def _drawn(self, batch: Batch) -> Iterator[int]:
        for row, drawn in enumerate(self.chosen(batch, "lm", self.lm_fraction)):
            if drawn and batch["responses"][row].strip():
                yield row

    def save_folder(self, folder: Path, config: SafetyConfig) -> None:
        """The modules alone: stage 1 has no LoRA."""
        super().save_folder(folder, config.with_changes(has_lora=False))
