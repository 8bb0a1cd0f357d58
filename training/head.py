"""Stage 1: the head, set A and the projector from cached features; set B through the frozen LLM.

L = L_LM + weight * (CE_level + CE_category). The CE terms need the vision tower once per image and no
LLM; L_LM reaches set B of the tokens alone. Without `train_tokens` no tensor of the LLM is read but
its input embeddings, with which the head reads prompts.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from safevlm import checkpoint as checkpoints
from safevlm.backbone import PromptTable, Views, VisionTower, is_timm
from safevlm.config import SafetyConfig
from safevlm.errors import BackboneError, DataError
from safevlm.guard import SafeVLM, lm_losses
from safevlm.labelled.table import Needs
from safevlm.modules import SafetyModules
from safevlm.viewing import ViewOutput, head_output

from .base import TrainingStage
from .batch import Batch
from .cache import FeatureCache, bfloat16_copy, cache_identity
from .feature_dropout import drop_channels, kept_channels
from .fill import Filler
from .hash_random import hash_uniform
from .lengths import check_lengths
from .loading import load_guard, load_tower_parts
from .options import CACHE, LOSS, OPERATING, SCHEDULE, SIZES, Cache, Loss, Operating, Schedule, Sizes

LOGGER = logging.getLogger(__name__)
CACHES = Path("~/.cache/safevlm/features")
STAND_IN = Image.new("RGB", (1, 1))
"""For a backbone that needs to know that there is an image, and gets its features from the cache."""


class HeadTraining(TrainingStage):
    """Stage 1 of training.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model; without `train_tokens` a vision
            tower alone will do, such as `timm:NAME`, whose head then reads no prompts.
        checkpoint: name or folder of safety modules to continue; its own backbone where `backbone` is not given.
            LoRA layers in it stay as they are: frozen where rows go through the LLM, and copied to the output folder.
        output_dir: folder that the trained modules are written to, for `SafeVLM.from_pretrained`.
        overwrite: whether output_dir may hold a checkpoint already.
        train_tokens: whether set B is trained with L_LM through the frozen LLM (needs responses); False
            reads no LLM.
        feature_dropout: probability, in [0, 1), that a channel of the features is zero in all patches of a row, drawn
            anew each epoch, where the head is trained (set B of the tokens and its LLM see them whole). Cached features
            have no augmentation; this keeps the head from resting on few channels.
        lm_fraction: fraction of the rows, selected anew each epoch, that go through the LLM, in (0, 1].
        gradient_checkpointing: whether the LLM's layers are run again in the backward pass, which takes about a
            third more time and a fraction of the memory; without `train_tokens` there is no such pass.
        dtype: of the frozen backbone; auto takes the files' own.
        sizes: of fresh modules.
        schedule: learning rate in AdamW, warm-up (20 steps) and decay.
        loss: weights of the terms.
        operating: the rate of false alarms, the prior and the reading category of what is chosen on the tune rows.
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
        feature_dropout: float = 0.0,
        lm_fraction: float = 1.0,
        gradient_checkpointing: bool = False,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        sizes: Sizes = SIZES,
        schedule: Schedule = SCHEDULE,
        loss: Loss = LOSS,
        operating: Operating = OPERATING,
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
            operating=operating,
        )
        if not 0 < lm_fraction <= 1:
            raise ValueError(
                f"lm_fraction is {lm_fraction}, a fraction in (0, 1] is needed; train_tokens switches L_LM off"
            )
        if not 0 <= feature_dropout < 1:
            raise ValueError(f"feature_dropout is {feature_dropout}, a probability in [0, 1) is needed")
        if not train_tokens and loss.weight == 0:
            raise ValueError(
                "loss.weight is 0 and train_tokens false: no term of the loss is left to train with"
            )
        self.train_tokens = self.trains_answers = train_tokens
        self.feature_dropout, self.lm_fraction, self.dtype_name = feature_dropout, lm_fraction, dtype
        self.gradient_checkpointing, self.cache_options = gradient_checkpointing, cache
        self.guard: SafeVLM | None = None
        self.own: SafetyModules | None = None
        self._lora: Path | None = None
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
        if self.start is not None:
            folder = checkpoints.fetch(self.start)
            if checkpoints.load_config(folder).has_lora:
                self._lora = folder
                checkpoints.lora_files(folder)  # that are missing should not be found at the end of the run
                LOGGER.info("the LoRA layers of %s stay as they are", self.start)
        if self.train_tokens and is_timm(self.backbone_name or ""):
            raise BackboneError(
                f"{self.backbone_name} has no LLM that the safety tokens could speak to; train the head alone "
                "(--model.train_tokens false)"
            )
        given = (self.backbone_name, self.start, self.sizes, self.dtype_name)
        if self.train_tokens:
            self.guard = load_guard(*given, device=self.root_device)
            self.config, self.tower = self.guard.config, self.guard.backbone.tower
            self.prompt_table = self.guard.backbone.prompt_table
        else:
            parts = load_tower_parts(*given, device=self.root_device)
            self.config, self.tower, self.prompt_table, self.own = parts
        self.safety.requires_grad_(True)
        self.safety.tokens.prompt.requires_grad_(self.train_tokens)
        if self.safety.head.prompt is not None:
            self.safety.head.prompt.requires_grad_(self.loss.prompt_probability > 0)

    def check_rows(self) -> None:
        """With `train_tokens` the rows that have a response go through the LLM."""
        if self.guard is not None:
            check_lengths(self.data, self.guard, hint=lambda row: "", only_answered=True)

    def prepare(self) -> None:
        """Fill the cache with every image of the run; the processes split the work."""
        self.data.decode_images = self.guard is not None and not self.tower.family.reads_prepared
        if self.train_tokens and not any(row.response.strip() for row in self.data.train_rows):
            raise DataError(
                f"{self.data.table}, column response: is empty in every row, and train_tokens needs answers; "
                "add them, or train the head alone (--model.train_tokens false)"
            )
        self.tower.module.to(self.root_device)
        states = 1 if self.guard is None else self.tower.states
        quick = self.cache_options.dtype == "bfloat16"
        identity = cache_identity(self.tower, self.cache_options.precision, states=states, bfloat16=quick)
        own = f"{identity['tower_sha256'][:16]}{self.tower.layer}" + (f"x{states}" if states > 1 else "")
        own += "-bfloat16" if quick else ""
        folder = Path(self.cache_options.folder or CACHES / own)
        self.features = FeatureCache(folder.expanduser(), identity)
        filler = Filler(
            self.features,
            bfloat16_copy(self.tower) if quick else self.tower,
            ranks=self.data.ranks,
            batch_size=self.cache_options.batch_size,
            silent=self.global_rank > 0 or self.trainer.progress_bar_callback is None,
        )
        filler.fill({row.key: row for row in self.data.rows})

    def scores(self, batch: Batch, *prompts: list[str]) -> tuple[list[ViewOutput], list[int]]:
        """The head on cached features; every row has an image."""
        views = self._views(batch)
        return [self._head(views, texts) for texts in prompts], list(range(len(batch["keys"])))

    def _views(self, batch: Batch) -> Views:
        return self.features.read(batch["keys"], channels=self.tower.dim)

    def _head(self, views: Views, prompts: list[str]) -> ViewOutput:
        return head_output(self.safety, views, table=self.prompt_table, prompts=prompts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        views = self._views(batch)
        if self.feature_dropout:
            rows, key = batch["index"].tolist(), (self.data.seed, self.current_epoch)
            kept = kept_channels(rows, self.tower.dim, self.feature_dropout, *key)
            views = drop_channels(views, kept)
        output = self._head(views, self.head_prompts(batch))
        losses = self.head_loss(output, list(range(len(batch["keys"]))), batch)
        return self.finish_step(batch, self._lm_loss(batch), losses)

    def _lm_loss(self, batch: Batch) -> Tensor:
        """L_LM: the sum over the selected rows that have an answer, divided by the expected number of selected rows."""
        rows = self._lm_rows(batch)
        if self.guard is None or not rows:
            return torch.zeros((), device=self.device)
        losses = self.answer_losses(batch, rows)
        return losses.sum() / (len(batch["keys"]) * self.lm_fraction)

    def answer_losses(self, batch: Batch, rows: list[int]) -> Tensor:
        """L_LM of these rows through the frozen LLM, on cached features; (len(rows),) in nats per token."""
        assert self.guard is not None, "rows are selected for the LLM where there is one"
        return lm_losses(
            self.guard.backbone,
            self.safety,
            [batch["images"][row] or STAND_IN for row in rows],
            [batch["prompts"][row] for row in rows],
            [batch["responses"][row] for row in rows],
            passed=self.tower.unpack(self.features.read([batch["keys"][row] for row in rows])),
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def tune_answers(self, batch: Batch) -> list[int]:
        """As large a fraction of the tune rows as goes through the LLM in training."""
        numbers = batch["index"].tolist()
        return [
            row
            for row in super().tune_answers(batch)
            if hash_uniform(self.data.seed, "tune-lm", numbers[row]) < self.lm_fraction
        ]

    def own_options(self) -> dict[str, Any]:
        """What of the LLM is trained with, and how features are kept."""
        return {
            "model.train_tokens": self.train_tokens,
            "model.feature_dropout": self.feature_dropout,
            "model.lm_fraction": self.lm_fraction,
            "model.dtype": self.dtype_name,
            "model.cache.precision": self.cache_options.precision,
            "model.cache.dtype": self.cache_options.dtype,
        }

    def _lm_rows(self, batch: Batch) -> list[int]:
        """The rows of a batch that go through the LLM in this epoch."""
        mask = self.random_mask(batch, "lm", self.lm_fraction)
        return [row for row, used in enumerate(mask) if used and batch["responses"][row].strip()]

    def save_folder(self, folder: Path, config: SafetyConfig) -> None:
        """Write the modules, and the LoRA layers of the checkpoint that is continued as they were."""
        super().save_folder(folder, config.with_changes(has_lora=self._lora is not None))
        if self._lora is not None:
            checkpoints.copy_lora(self._lora, folder)
