"""What both stages share: loading, optimizer, tune metrics, lean checkpoints, and the folder at the end."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from safevlm import checkpoint
from safevlm.backbone import load_backbone
from safevlm.config import SafetyConfig
from safevlm.errors import CheckpointError, SafeVLMError, TrainingError
from safevlm.guard import SafeVLM
from safevlm.labelled.table import Needs
from safevlm.model_card import model_card
from safevlm.modules import LossParts, SafetyModules, safety_loss, total_loss
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED
from safevlm.viewing import ViewOutput

from .balance import class_weights
from .datamodule import Batch, SafetyDataModule
from .draw import draw
from .ending import finish, sums
from .export import Export, best_keeper
from .finite import REMEDY, FiniteWatch, not_finite
from .options import Loss, Schedule, Sizes, backbone_place
from .preflight import check_batches, check_monitors, check_trainer
from .record import run_record
from .resume import KEY, refuse_changes
from .tuning import all_metrics, gathered

LOGGER = logging.getLogger(__name__)


class Recipe(LightningModule):
    """Base of the stages; the constructor touches neither disk nor network."""

    default_warmup = 0
    trains_answers = True
    """Whether L_LM is part of the loss."""
    config: SafetyConfig

    def __init__(
        self,
        backbone: str | None,
        checkpoint: str | None,
        *,
        output_dir: str,
        overwrite: bool,
        sizes: Sizes,
        schedule: Schedule,
        loss: Loss,
    ) -> None:
        super().__init__()
        if backbone is None and checkpoint is None:
            raise ValueError("give a backbone (--model.backbone NAME_OR_FOLDER) or a checkpoint to continue")
        self.backbone_name, self.start = backbone, checkpoint
        self.output_dir, self.overwrite = Path(output_dir), overwrite
        self.sizes, self.schedule, self.loss = sizes, schedule, loss
        self.class_weights: dict[str, Tensor | None] = {"level": None, "category": None}
        self.export: Export | None = None
        """Which weights are written; None: the best where tune rows can choose, else the last."""
        self._tuned: dict[int, tuple[Tensor, ...]] = {}
        self._answered: dict[int, Tensor] = {}
        self._record: dict[str, Any] = {}
        self._before: list[float] = []
        self._built = False

    # what a stage defines

    needs: Needs
    """What every row of the tables must have."""

    @abstractmethod
    def build(self) -> None:
        """Load the parts; set `config`."""

    @property
    @abstractmethod
    def safety(self) -> SafetyModules:
        """The modules, wherever they are registered."""

    @abstractmethod
    def scores(self, batch: Batch, *prompts: list[str]) -> tuple[list[ViewOutput], list[int]]:
        """The head's output for the rows that have an image, once per list of prompts, and which rows these are."""

    @abstractmethod
    def answer_losses(self, batch: Batch, rows: list[int]) -> Tensor:
        """L_LM of each of these rows, (len(rows),) in nats per token."""

    def answered(self, batch: Batch) -> list[int]:
        """The rows of a tune batch that `tune/lm` is measured on; the same in every epoch."""
        if not self.trains_answers:
            return []
        return [row for row, response in enumerate(batch["responses"]) if response.strip()]

    def own_options(self) -> dict[str, Any]:
        """Options of this stage that a resumed run must have in common with the run it continues."""
        return {}

    def check_rows(self) -> None:
        """Refuse or drop rows that the parts cannot take; overridden where rows go through the LLM."""

    def prepare(self) -> None:
        """What remains to do once the parts and the data are there."""

    def save_folder(self, folder: Path, config: SafetyConfig) -> None:
        """Write the checkpoint; overridden where there is more than the modules."""
        checkpoint.save(folder, config, self.safety.state_dict(), card=model_card(config))

    # set-up

    @property
    def taxonomy(self) -> Taxonomy:
        """The checkpoint's that is continued, or the one that `sizes` names."""
        if self.start is None:
            return self.sizes.load_taxonomy()
        return checkpoint.load_config(checkpoint.fetch(self.start)).taxonomy

    @property
    def data(self) -> SafetyDataModule:
        """The trainer's data module."""
        found = getattr(self.trainer, "datamodule", None)
        if not isinstance(found, SafetyDataModule):
            raise TypeError("the stages train on a SafetyDataModule; pass one as `datamodule` to trainer.fit")
        return found

    @property
    def root_device(self) -> torch.device:
        """The device of this process."""
        found: torch.device = self.trainer.strategy.root_device
        return found

    def check_options(self) -> None:
        """Refuse what would train nothing, or overwrite a folder, before any data is read."""
        check_trainer(self.trainer)
        if self.export == "best" and best_keeper(self.trainer) is None:
            raise TrainingError(
                "--export best needs checkpoints (trainer.enable_checkpointing); give --export last"
            )
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise CheckpointError(f"{self.output_dir} is a file, not a folder; give another output_dir")
        if (self.output_dir / checkpoint.CONFIG).exists() and not self.overwrite:
            raise CheckpointError(
                f"{self.output_dir} already holds a checkpoint; give another output_dir, or overwrite it "
                "(--model.overwrite true)"
            )

    def configure_callbacks(self) -> list[Callback]:
        """Stop where something is not finite, whichever way the trainer was made."""
        return [FiniteWatch()]

    def setup(self, stage: str) -> None:
        """Load the parts, weigh the classes, note what a resumed run must have in common with this one."""
        check_batches(self.trainer, self.data.batches())
        if not self._built:
            self.build()
            self._built = True
        self.config = self.config.with_changes(calibration=None)
        self.check_rows()
        check_batches(self.trainer, self.data.batches())  # rows may have been dropped
        self.weigh_classes()
        check_monitors(self.trainer, tuned=self.chooses)
        self.prepare()
        if not self.trained:
            raise TrainingError(
                "no parameter is trained: everything is frozen; unfreeze what the run should train"
            )
        if self.export == "best" and not self.chooses:
            raise TrainingError(
                "--export best needs tune rows with labels or answers; give some (a split column, or "
                "--data.tune_fraction), or --export last"
            )
        self._record, self._before = run_record(self), sums(self.trained)
        LOGGER.info("%d trained parameters", sum(p.numel() for p in self.parameters() if p.requires_grad))

    def weigh_classes(self) -> None:
        """Count what an epoch draws of each class, where the loss is to be balanced."""
        if self.loss.class_weights == "balanced":
            taxonomy = self.config.taxonomy
            drawn = [(row, times) for row, times in self.data.draws() if row.image is not None]
            self.class_weights = {
                "level": class_weights(((row.level, times) for row, times in drawn), len(taxonomy.levels)),
                "category": class_weights(
                    ((row.category, times) for row, times in drawn), len(taxonomy.categories)
                ),
            }

    @property
    def chooses(self) -> bool:
        """Whether the tune rows say which epoch is best: one has a label, or an answer that is trained on."""
        return any(
            row.level != IGNORED or row.category != IGNORED or (self.trains_answers and row.response.strip())
            for row in self.data.tune_rows
        )

    def configure_optimizers(self) -> Any:
        """AdamW over what is trained; warm-up and cosine per optimizer step."""
        steps = self.data.steps()
        asked = self.default_warmup if self.schedule.warmup_steps is None else self.schedule.warmup_steps
        warmup = min(asked, steps // 2)
        if warmup < asked:
            LOGGER.warning("warm-up shortened from %d to %d steps: the run has %d", asked, warmup, steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

        optimizer = AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=self.schedule.lr,
            betas=self.schedule.betas,
            weight_decay=self.schedule.weight_decay,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    # training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by the batch's place, so that a resumed run draws what an uninterrupted one does."""
        place = (self.data.seed, "dropout", self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(draw(*place) * 2**53))

    def chosen(self, batch: Batch, purpose: str, probability: float) -> list[bool]:
        """Per row whether it is drawn for a purpose in this epoch; the same in whatever batch it is."""
        place = (self.data.seed, purpose, self.current_epoch)
        return [draw(*place, row) < probability for row in batch["index"].tolist()]

    def head_prompts(self, batch: Batch) -> list[str]:
        """The prompts that the head reads in this epoch; empty for rows that are scored from the image alone."""
        drawn = self.chosen(batch, "prompt", self.loss.prompt_probability)
        return [prompt if yes else "" for prompt, yes in zip(batch["prompts"], drawn, strict=True)]

    def head_loss(self, output: ViewOutput | None, rows: list[int], batch: Batch) -> dict[str, Tensor]:
        """CE_level and CE_category: sums over labelled rows, divided by all rows of the batch.

        Dividing by the batch's size (and not by its labelled rows) makes the mean of the gradients of
        eight batches of one the gradient of one batch of eight.
        """
        if output is None:
            zero = torch.zeros((), device=self.device)
            return {"level": zero, "category": zero}
        levels, categories = batch["levels"].to(self.device)[rows], batch["categories"].to(self.device)[rows]
        weights = {name: None if w is None else w.to(self.device) for name, w in self.class_weights.items()}
        parts = safety_loss(
            *output.logits(),
            levels,
            categories,
            level_weights=weights["level"],
            category_weights=weights["category"],
        )
        count = len(batch["levels"])
        return {
            "level": parts.level * ((levels != IGNORED).sum() / count),
            "category": parts.category * ((categories != IGNORED).sum() / count),
        }

    def finish_step(self, batch: Batch, lm: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """L_LM + weight * (CE_level + CE_category), logged; every trained parameter takes part (DDP)."""
        loss = total_loss(lm, LossParts(parts["level"], parts["category"]), weight=self.loss.weight)
        size = len(batch["levels"])
        values = {"train/lm": lm, "train/level": parts["level"], "train/category": parts["category"]}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({name: value.detach() for name, value in values.items()}, batch_size=size)
        touched = torch.stack([p.reshape(-1)[:1].sum().float() for p in self.parameters() if p.requires_grad])
        return loss + 0.0 * touched.sum()

    # tuning

    def on_validation_epoch_start(self) -> None:
        """Forget the last round."""
        self._tuned, self._answered = {}, {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the head's logits of the image alone, and of image + prompt where there is one, and L_LM."""
        self._tuned.update(self.tune_rows(batch))
        if rows := self.answered(batch):
            losses = self.answer_losses(batch, rows).detach().float().cpu()
            self._answered.update(zip(batch["index"][rows].tolist(), losses, strict=True))

    def tune_rows(self, batch: Batch) -> dict[int, tuple[Tensor, ...]]:
        """Row number -> level and category logits alone, level logits with prompt, labels, whether a prompt."""
        nothing = [""] * len(batch["prompts"])
        variants = [nothing, batch["prompts"]] if any(batch["prompts"]) else [nothing]
        outputs, rows = self.scores(batch, *variants)
        if not outputs:
            return {}
        (alone, kinds), (together, _) = outputs[0].logits(), outputs[-1].logits()
        found = {}
        for place, row in enumerate(rows):
            logits = (alone, kinds, together)
            labels = (
                batch["levels"][row],
                batch["categories"][row],
                torch.tensor(bool(batch["prompts"][row])),
            )
            values = (*(part[place] for part in logits), *labels)
            found[int(batch["index"][row])] = tuple(value.detach().cpu() for value in values)
        return found

    def on_validation_epoch_end(self) -> None:
        """Metrics over all tune rows, each counted once whatever the number of processes."""
        if self.trainer.sanity_checking:
            return
        tuned, answered = gathered(self.trainer, self._tuned), gathered(self.trainer, self._answered)
        metrics = all_metrics(tuned, answered, weight=self.loss.weight)
        if names := not_finite(metrics):
            raise TrainingError(
                f"not finite after optimizer step {self.global_step}, epoch {self.current_epoch}: {names}; {REMEDY}"
            )
        self.log_dict(metrics, rank_zero_only=False, sync_dist=False)

    # checkpoints

    @property
    def trained(self) -> dict[str, Tensor]:
        """Name -> parameter of all that this stage trains."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained; frozen weights come from where they were loaded."""
        trained = self.trained
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint[KEY] = self._record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare options, rows, names and sizes with those of this run, then complete the frozen rest."""
        refuse_changes(checkpoint.get(KEY), self._record)
        saved, trained = checkpoint["state_dict"], self.trained
        for name in sorted(set(saved) ^ set(trained)):
            state = "is missing from" if name in trained else "is foreign in"
            raise CheckpointError(
                f"the key {name!r} {state} the checkpoint; resume with the options it was made with"
            )
        for name, value in saved.items():
            if value.shape != trained[name].shape:
                raise CheckpointError(
                    f"{name!r} has size {tuple(value.shape)} in the checkpoint, {tuple(trained[name].shape)} "
                    "here; resume with the options it was made with"
                )
        checkpoint["state_dict"] = {**self.state_dict(), **saved}

    # the end

    def on_fit_end(self) -> None:
        """Choose the weights, calibrate on the tune rows and write the folder; one process does, all learn of it."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            LOGGER.warning("a trial run (trainer.fast_dev_run): %s is not written", self.output_dir)
            return
        failed: Exception | None = None
        if self.trainer.is_global_zero:
            try:
                finish(self, self._before)
            except (SafeVLMError, OSError) as error:
                failed = error
        said = self.trainer.strategy.broadcast("" if failed is None else str(failed))
        if failed is not None:
            raise failed
        if said:
            raise TrainingError(f"process 0 wrote no weights: {said}")


def open_guard(
    backbone: str | None, start: str | None, sizes: Sizes, dtype: str, *, device: torch.device
) -> SafeVLM:
    """Fresh modules on a backbone, or a checkpoint to continue (on another copy of its backbone where one is given).

    The weights go from the mapped files to the process's own device, with no copy in the host's memory.
    The modules are float32 beside a backbone of any dtype, since they are trained.
    """
    place, name = backbone_place(backbone) if backbone is not None else (None, None)
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    if start is None:
        assert place is not None
        config = sizes.config().with_changes(backbone=name)
        return SafeVLM.attach(load_backbone(place, **options), config, safety_dtype=torch.float32)
    guard = SafeVLM.from_pretrained(start, backbone=place, safety_dtype=torch.float32, **options)
    guard.config = guard.config.with_changes(backbone=name or guard.config.backbone)
    return guard
