"""Stage 2: safety modules and LoRA on the LLM together, on risky and clean answers, hints in some prompts.

L = L_LM + weight * (CE_level + CE_category), ordinary SFT labels (prompts are left out of the loss). The
backbone's own weights stay frozen; LoRA layers go on the language model's linear layers and
nowhere else: not on the tower, the projector or the output layer.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from safevlm.config import SafetyConfig
from safevlm.guard import SafeVLM, lm_losses
from safevlm.labelled.table import LabelledRow, Needs
from safevlm.modules import SafetyModules
from safevlm.policy import Policy
from safevlm.viewing import ViewOutput, head_output

from .base import TrainingStage
from .batch import Batch
from .hash_random import hash_uniform
from .hints import HintSource, every_hint, labelled_hint, predicted_hints
from .lengths import check_lengths
from .loading import load_guard
from .lora import LORA, Lora, inject_lora, unfreeze_lora
from .options import LOSS, OPERATING, SCHEDULE, SIZES, Loss, Operating, Schedule, Sizes
from .refusals import asked_rows, refusal_metrics, refused
from .tuning import gathered

LOGGER = logging.getLogger(__name__)


class JointTraining(TrainingStage):
    """Stage 2 of training.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model.
        checkpoint: folder of safety modules to continue, stage 1's as a rule; LoRA layers in it are continued too.
        output_dir: folder that modules and LoRA are written to, for `SafeVLM.from_pretrained`.
        overwrite: whether output_dir may hold a checkpoint already.
        hints: where they come from. "predicted": from what the head says of the row in the same step, as at
            inference, its misses and false alarms included, with the policy at the operating point of the checkpoint
            that is continued. "labels": those of risky rows, from their labels; the LLM then refuses by the hint alone.
            "none": as the authors train.
        hint_probability: fraction of the rows, selected anew each epoch, that get the hint they have, in [0, 1]; the
            others are answered without it.
        false_hint_probability: fraction of the safe rows with an image, selected anew each epoch, that get the hint of
            a random risky level and category, in [0, 1]. 0.03, the false alarms that the operating point allows: on
            rows that the head was trained on it raises fewer than elsewhere.
        refusal_rows: tune rows that are answered after each epoch, to log how often the LLM refuses; half of
            them risky. 0 switches it off.
        gradient_checkpointing: whether the LLM's layers are run again in the backward pass, which takes about a
            third more time and a fraction of the memory.
        dtype: of the frozen backbone; auto takes the files' own. LoRA layers and modules are float32.
        sizes: of fresh modules.
        schedule: learning rate in AdamW, warm-up (300 steps) and decay.
        loss: weights of the terms.
        operating: the rate of false alarms, the prior and the reading category of what is chosen on the tune rows.
        lora: of the LoRA layers.
    """

    default_warmup = 300
    needs = Needs(image=False, text=True)

    def __init__(
        self,
        backbone: str | None = None,
        checkpoint: str | None = None,
        output_dir: str = "safevlm-joint",
        overwrite: bool = False,
        hints: HintSource = "predicted",
        hint_probability: float = 0.5,
        false_hint_probability: float = 0.03,
        refusal_rows: int = 32,
        gradient_checkpointing: bool = False,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        sizes: Sizes = SIZES,
        schedule: Schedule = SCHEDULE,
        loss: Loss = LOSS,
        operating: Operating = OPERATING,
        lora: Lora = LORA,
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
        for name, value in (
            ("hint_probability", hint_probability),
            ("false_hint_probability", false_hint_probability),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}, a fraction in [0, 1] is needed")
        if refusal_rows < 0:
            raise ValueError(f"refusal_rows is {refusal_rows}; at least 0 is needed")
        self.refusal_rows = refusal_rows
        self.hint_source, self.hint_probability = hints, hint_probability
        self.false_hint_probability = false_hint_probability
        self.dtype_name, self.lora = dtype, lora
        self.gradient_checkpointing = gradient_checkpointing
        self.guard: SafeVLM
        self.policy: Policy
        self._every_hint: list[str] = []
        self._counted: dict[str, int] = {}
        self._dropouts: list[nn.Module] = []

    @property
    def safety(self) -> SafetyModules:
        """The safety modules, inside the guard."""
        return self.guard.safety

    def build(self) -> None:
        """Load the whole model, with new LoRA layers or those of the checkpoint."""
        self.use(
            load_guard(self.backbone_name, self.start, self.sizes, self.dtype_name, device=self.root_device)
        )
        self.guard.safety.requires_grad_(True)
        if self.guard.has_lora:
            LOGGER.info("continuing the LoRA layers of %s; --model.lora is not used", self.start)
        else:
            inject_lora(self.guard.language_model, self.lora)
        self._dropouts = unfreeze_lora(self.guard.language_model)

    def use(self, guard: SafeVLM) -> None:
        """Take a guard to train; its operating point decides which of the head's predictions give a hint."""
        self.guard, self.config = guard, guard.config
        self.policy = Policy.hints_only(guard.config.taxonomy, threshold=guard.config.threshold)
        self._every_hint = every_hint(self.policy)

    def check_rows(self) -> None:
        """Every row goes through the LLM, some with a hint before the prompt."""
        check_lengths(self.data, self.guard, hint=self._longest_hint, only_answered=False)

    def _longest_hint(self, row: LabelledRow) -> str:
        """The hint with the most tokens that may stand before the row's prompt."""
        if self.hint_source == "none":
            return ""
        possible = [""]
        if self.hint_probability and self.hint_source == "labels":
            possible.append(labelled_hint(self.policy, row.level, row.category))
        predicted = self.hint_probability and self.hint_source == "predicted"
        if row.image is not None and (predicted or (self.false_hint_probability and row.level == 0)):
            possible += self._every_hint
        return max(possible, key=self._tokens)

    def _tokens(self, hint: str) -> int:
        if hint not in self._counted:
            self._counted[hint] = len(self.guard.backbone.tokenizer(hint).input_ids)
        return self._counted[hint]

    def _set_dropout(self, training: bool) -> None:
        """`train()` does not reach LoRA's dropout: the frozen layers around it stay in eval mode."""
        for part in self._dropouts:
            part.train(training)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Switch dropout on, and seed it."""
        super().on_train_batch_start(batch, batch_idx)
        self._set_dropout(True)

    def on_validation_epoch_start(self) -> None:
        """Switch dropout off."""
        super().on_validation_epoch_start()
        self._set_dropout(False)

    def on_fit_end(self) -> None:
        """Switch dropout off, then write the folder."""
        self._set_dropout(False)
        super().on_fit_end()

    def hints(self, batch: Batch, head: ViewOutput | None) -> list[str]:
        """What is put before each row's prompt in this epoch, in the policy's words; empty for nothing.

        Args:
            batch: of training rows.
            head: its output for the rows that have an image; None where no row has one.
        """
        if self.hint_source == "none":
            return [""] * len(batch["prompts"])
        if self.hint_source == "labels":
            labels = zip(batch["levels"].tolist(), batch["categories"].tolist(), strict=True)
            own = [labelled_hint(self.policy, *row) for row in labels]
        else:
            own = predicted_hints(self.guard.scorer, self.policy, head, batch["images"])
        mask = self.random_mask(batch, "hint", self.hint_probability)
        given = [hint if put else "" for hint, put in zip(own, mask, strict=True)]
        return [hint or false for hint, false in zip(given, self._false_hints(batch), strict=True)]

    def _false_hints(self, batch: Batch) -> list[str]:
        """For selected safe rows with an image a hint by lot; empty for the others."""
        mask = self.random_mask(batch, "false hint", self.false_hint_probability)
        key = (self.data.seed, "which false hint", self.current_epoch)
        rows = zip(batch["index"].tolist(), batch["levels"].tolist(), batch["images"], mask, strict=True)
        return [
            self._every_hint[int(hash_uniform(*key, row) * len(self._every_hint))]
            if selected and level == 0 and image is not None
            else ""
            for row, level, image, selected in rows
        ]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step's loss; the tower runs once for head and LLM."""
        output = self.guard(
            batch["images"],
            batch["prompts"],
            batch["responses"],
            hints=partial(self.hints, batch),
            head_prompts=self.head_prompts(batch),
            gradient_checkpointing=self.gradient_checkpointing,
        )
        return self.finish_step(batch, output.lm_loss, self.head_loss(output.head, _with_image(batch), batch))

    def scores(self, batch: Batch, *prompts: list[str]) -> tuple[list[ViewOutput], list[int]]:
        """The head on the tower's features of the rows that have an image."""
        rows = _with_image(batch)
        if not rows:
            return [], rows
        tower = self.guard.backbone.tower
        passed = tower(tower.preprocess([image for image in batch["images"] if image is not None]))
        table = self.guard.backbone.prompt_table
        outputs = [
            head_output(self.safety, passed.views, table=table, prompts=[texts[row] for row in rows])
            for texts in prompts
        ]
        return outputs, rows

    def answer_losses(self, batch: Batch, rows: list[int]) -> Tensor:
        """L_LM without hints: what the model says where no policy helps it."""
        return lm_losses(
            self.guard.backbone,
            self.safety,
            [batch["images"][row] for row in rows],
            [batch["prompts"][row] for row in rows],
            [batch["responses"][row] for row in rows],
        )

    def on_validation_epoch_end(self) -> None:
        """The metrics of the head and L_LM, and how often the LLM refuses on a few tune rows."""
        super().on_validation_epoch_end()
        rows, trainer = self.data.tune_rows, self.trainer
        if trainer.sanity_checking:
            return
        asked = asked_rows(rows, self.refusal_rows, self.data.seed)
        own = asked[trainer.global_rank :: trainer.world_size]
        answers = refused(self.guard, [rows[number] for number in own], batch_size=self.data.batch_size)
        found = gathered(trainer, dict(zip(own, answers, strict=True)))
        self.log_tuned(refusal_metrics(found, rows))

    def own_options(self) -> dict[str, Any]:
        """Hints, the frozen part's dtype and the LoRA layers."""
        return {
            "model.hints": self.hint_source,
            "model.hint_probability": self.hint_probability,
            "model.false_hint_probability": self.false_hint_probability,
            "model.dtype": self.dtype_name,
            **{f"model.lora.{name}": value for name, value in asdict(self.lora).items()},
        }

    def save_folder(self, folder: Path, config: SafetyConfig) -> None:
        """Write the modules and the LoRA layers."""
        self.guard.config = config
        self.guard.save_pretrained(folder)


def _with_image(batch: Batch) -> list[int]:
    return [row for row, image in enumerate(batch["images"]) if image is not None]
