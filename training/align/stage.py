"""The Lightning module that SFT, DPO and PPO are: set-up, optimizer, checkpoints to resume from, and the folder at the end."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from safevlm import aligned
from safevlm.backbone import Backbone
from safevlm.errors import BackboneError, CheckpointError, TrainingError
from safevlm.files import replacing_folder

from ..finish import sums
from ..finite import REMEDY, not_finite
from ..hash_random import hash_seed
from ..loading import named_backbone
from ..lora import Lora
from ..options import Schedule
from ..preflight import check_batches, check_trainer
from ..resume import STEPS
from ..schedule import optimizer_steps
from ..stage import Stage
from .data import AlignBatch, AlignData
from .lengths import check_room
from .policy import Policy, Prompts
from .samples import Sample

LOGGER = logging.getLogger(__name__)
Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
LORA = Lora(r=128, alpha=256, dropout=0.05)
"""The paper's."""


class AlignStage(Stage):
    """Base of the three, with the arguments that they share.

    A stage defines `training_step`, and may override `answers`, `own_options` and `value_lora`.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model, or the folder of an alignment, whose LoRA layers
            are merged into the weights first: the reference is then the model that it made.
        output_dir: folder that the LoRA layers are written to, for `safevlm.aligned.load_aligned`.
        overwrite: whether output_dir may hold an alignment already.
        dtype: of the frozen backbone; auto takes the files' own. LoRA layers are float32.
        quantization: transformers' quantization config of the frozen LLM, such as {load_in_4bit: true}; null: none.
        gradient_checkpointing: whether the LLM's layers are run again in the backward pass, to save memory.
        schedule: learning rate in AdamW, warm-up and decay.
        lora: of the LoRA layers; r 128, alpha 256 and dropout 0.05 in the paper.
    """

    value_lora: str | None = None
    """Name of the second set of LoRA layers that the stage needs."""
    new_tokens = 0
    """Tokens that are sampled for an answer."""
    policy: Policy

    def __init__(
        self,
        backbone: str,
        *,
        output_dir: str,
        schedule: Schedule,
        overwrite: bool = False,
        dtype: Dtype = "auto",
        quantization: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        lora: Lora = LORA,
    ) -> None:
        super().__init__(output_dir=output_dir, overwrite=overwrite, schedule=schedule)
        self.backbone_name = backbone
        self.dtype_name, self.quantization = dtype, quantization
        self.gradient_checkpointing = gradient_checkpointing
        self.lora = lora

    # what a stage defines

    @abstractmethod
    def training_step(self, batch: AlignBatch, batch_idx: int) -> Tensor | None:
        """One step; returns the loss, or None where the stage optimises by hand."""

    def answers(self, sample: Sample) -> Sequence[str]:
        """The answers of a sample that are trained on."""
        return ()

    def own_options(self) -> dict[str, Any]:
        """Options of this stage that a resumed run must have in common with the run it continues."""
        return {}

    def steps_per_batch(self) -> int:
        """Optimizer steps of a batch."""
        return 1

    # set-up

    @property
    def data(self) -> AlignData:
        """The trainer's data module; raises TypeError where it has none, or another kind."""
        found = getattr(self.trainer, "datamodule", None)
        if not isinstance(found, AlignData):
            raise TypeError("alignment trains on an AlignData; pass one as `datamodule` to trainer.fit")
        return found

    def setup(self, stage: str) -> None:
        """Check the options, read the data, load the backbone, and note what a resumed run must have in common."""
        check_trainer(self.trainer)
        if self.trainer.world_size > 1:
            raise TrainingError(
                f"alignment trains in one process, and {self.trainer.world_size} are asked for; give --trainer.devices 1, and "
                "trainer.accumulate_grad_batches (model.ppo.micro_batch in PPO) for larger batches"
            )
        self._check_output()
        if not len(self.data):
            self.data.read()
        check_batches(self.trainer, self.data.batches())
        if not hasattr(self, "policy"):
            self.use(self._load())
        check_room(
            self.policy.backbone, self.data.distinct_samples(), self.answers, new_tokens=self.new_tokens
        )
        self.begin(self._run_record())
        LOGGER.info("%d trained parameters", sum(p.numel() for p in self.trained.values()))

    def use(self, backbone: Backbone) -> None:
        """Take a loaded backbone to train; new LoRA layers go on its LLM."""
        if getattr(backbone.model, "peft_config", None):
            raise BackboneError(
                f"{backbone.name}: has LoRA layers already, and the reference of alignment is the model without any; give the "
                "backbone that they were trained on"
            )
        self.policy = Policy(
            backbone,
            self.lora,
            value_lora=self.value_lora,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def _load(self) -> Backbone:
        options: dict[str, Any] = {
            "dtype": self.dtype_name,
            "device_map": {"": self.trainer.strategy.root_device},
        }
        if self.quantization is not None:
            options["quantization_config"] = self.quantization
        backbone = aligned.load_merged(named_backbone(self.backbone_name)[0], **options)
        backbone.tower.fold_norms()  # it stays frozen, and is most of a small model's work
        return backbone

    def _check_output(self) -> None:
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise CheckpointError(f"{self.output_dir} is a file, not a folder; give another output_dir")
        if (self.output_dir / aligned.CONFIG).exists() and not self.overwrite:
            raise CheckpointError(
                f"{self.output_dir} already holds an alignment; give another output_dir, or overwrite it "
                "(--model.overwrite true)"
            )

    def _run_record(self) -> dict[str, Any]:
        """Options and rows by name, as plain values, that a resumed run must share with the run it continues."""
        trainer = self.trainer
        return {
            "stage": type(self).__name__,
            **self.data.record(),
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
            "trainer.limit_train_batches": trainer.limit_train_batches,
            "trainer.gradient_clip_val": trainer.gradient_clip_val,
            "trainer.precision": str(trainer.precision),
            STEPS: self.steps(),
            "backbone's language_fingerprint": list(self.policy.backbone.language_fingerprint),
            "model.dtype": self.dtype_name,
            "model.quantization": self.quantization,
            **{f"model.schedule.{name}": value for name, value in asdict(self.schedule).items()},
            **{f"model.lora.{name}": value for name, value in asdict(self.lora).items()},
            **self.own_options(),
        }

    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return optimizer_steps(self.trainer, self.data.batches() * self.steps_per_batch())

    # training

    def on_train_batch_start(self, batch: AlignBatch, batch_idx: int) -> None:
        """Seed all chance by epoch and number of the batch, so that a resumed run equals an uninterrupted one."""
        torch.manual_seed(hash_seed(self.data.seed, "align", self.current_epoch, batch_idx))

    def see(self, batch: AlignBatch) -> tuple[list[Sample], Prompts]:
        """A batch's samples in this epoch, and their prompts, with one pass of the tower over the images."""
        samples = [self.data.sample(number, self.current_epoch) for number in batch["index"].tolist()]
        return samples, self.policy.see(samples, batch["images"])

    # the end

    def on_fit_end(self) -> None:
        """Write the last weights, unless they are broken or as they were."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            LOGGER.warning("a trial run (trainer.fast_dev_run): %s is not written", self.output_dir)
            return
        self.policy.set_dropout(False)
        if names := not_finite(self.trained):
            raise TrainingError(
                f"not finite at the end of training: {names}; {self.output_dir} is not written. {REMEDY}"
            )
        if self._sums_before == sums(self.trained):
            raise TrainingError(
                f"no weight changed in {self.global_step} optimizer steps, so {self.output_dir} is not written; raise the "
                "learning rate (--model.schedule.lr), and see that the answers get different rewards"
            )
        backbone, split = self.policy.backbone, self.data.split
        source, name = named_backbone(self.backbone_name)
        method = type(self).__name__.removesuffix("Training").lower()
        config = aligned.AlignmentConfig(
            backbone=name,
            method="+".join(filter(None, (aligned.methods_of(source), method))),
            language_fingerprint=tuple(backbone.language_fingerprint),
            split={} if split is None else split.to_dict(),
        )
        with replacing_folder(self.output_dir, last=aligned.CONFIG) as folder:
            aligned.save_aligned(folder, backbone, config)
        LOGGER.info("wrote %s", self.output_dir)
