"""The Lightning module that the guard's stages are: set-up, loss, tune metrics, checkpoints, and the folder at the end."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from safevlm import checkpoint
from safevlm.config import SafetyConfig
from safevlm.errors import TrainingError
from safevlm.labelled import Needs
from safevlm.model_card import model_card
from safevlm.modules import LossParts, SafetyModules, total_loss
from safevlm.taxonomy import Taxonomy
from safevlm.types import IGNORED
from safevlm.viewing import ViewOutput

from .balance import ClassWeights, balanced_weights
from .batch import Batch
from .class_counts import log_class_counts
from .console import only_from
from .datamodule import SafetyDataModule
from .export import Export
from .finish import choose, finish
from .finite import REMEDY, not_finite
from .hash_random import hash_seed, hash_uniform
from .head_loss import head_loss
from .history import History
from .options import Loss, Operating, Schedule, Sizes
from .preflight import check_batches, check_export, check_monitors, check_output, check_trainer
from .ranks import Ranks
from .record import run_record
from .schedule import optimizer_steps
from .stage import Stage
from .tuning import TuneRow, all_metrics, asked_texts, gathered, stacked, tune_rows

LOGGER = logging.getLogger(__name__)


class TrainingStage(Stage):
    """Base of the guard's stages; the constructor touches neither disk nor network.

    A stage defines `needs`, `build`, `safety`, `scores`, `answer_losses` and `training_step`, and may override
    `tune_answers`, `own_options`, `check_rows`, `prepare` and `save_folder`. It reads its data by the methods
    of `SafetyDataModule`, which does not know the stage.

    Args:
        backbone: name, folder or hub id of the vision-language model; None: the checkpoint's own.
        checkpoint: folder of safety modules to continue; None: fresh ones.
        output_dir: folder that the trained modules are written to.
        overwrite: whether output_dir may hold a checkpoint already.
        sizes: of fresh modules.
        schedule: learning rate in AdamW, warm-up and decay.
        loss: weights of the terms.
        operating: what is chosen on the tune rows at the end.

    Raises:
        ValueError: neither a backbone nor a checkpoint is given, or `operating.keep` without a checkpoint.
    """

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
        operating: Operating,
    ) -> None:
        super().__init__(output_dir=output_dir, overwrite=overwrite, schedule=schedule)
        if backbone is None and checkpoint is None:
            raise ValueError("give a backbone (--model.backbone NAME_OR_FOLDER) or a checkpoint to continue")
        if operating.keep and checkpoint is None:
            raise ValueError(
                "operating.keep is true, and there is no checkpoint (--model.checkpoint) to keep them of"
            )
        self.backbone_name, self.start = backbone, checkpoint
        self.sizes, self.loss, self.operating = sizes, loss, operating
        self.class_weights: ClassWeights | None = None
        self.export: Export | None = None
        """Which weights are written; None: the best where tune rows can choose, else the last."""
        self.history = History()
        self._tuned: dict[int, TuneRow] = {}
        self._answered: dict[int, Tensor] = {}
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

    def tune_answers(self, batch: Batch) -> list[int]:
        """The rows of a tune batch that `tune/lm` is measured on; the same in every epoch."""
        if not self.trains_answers:
            return []
        return [row for row, response in enumerate(batch["responses"]) if response.strip()]

    def own_options(self) -> dict[str, Any]:
        """Options of this stage that a resumed run must have in common with the run it continues."""
        return {}

    def check_rows(self) -> None:
        """Refuse or drop rows that do not fit the parts; every row does where none goes through the LLM."""

    def prepare(self) -> None:
        """Prepare for training, once the parts are built and the rows are read; nothing by default."""

    def save_folder(self, folder: Path, config: SafetyConfig) -> None:
        """Write the checkpoint; overridden where there is more than the modules."""
        checkpoint.save(folder, config, self.safety.state_dict(), card=model_card(config))

    # set-up

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the checkpoint that is continued, or the one that `sizes` names."""
        if self.start is None:
            return self.sizes.load_taxonomy()
        return checkpoint.load_config(checkpoint.fetch(self.start)).taxonomy

    @property
    def data(self) -> SafetyDataModule:
        """The trainer's data module.

        Raises:
            TypeError: the trainer has none, or another kind.
        """
        found = getattr(self.trainer, "datamodule", None)
        if not isinstance(found, SafetyDataModule):
            raise TypeError("the stages train on a SafetyDataModule; pass one as `datamodule` to trainer.fit")
        return found

    @property
    def root_device(self) -> torch.device:
        """The device of this process."""
        found: torch.device = self.trainer.strategy.root_device
        return found

    def configure_callbacks(self) -> list[Callback]:
        """Those of every stage, and one that tells of each epoch."""
        return [*super().configure_callbacks(), self.history]

    def setup(self, stage: str) -> None:
        """Check the options, read the data, load the parts, and note what a resumed run must have in common."""
        self.data.ranks = Ranks.of(self.trainer)  # also of rows that were read before there was a trainer
        if self.global_rank:
            logging.getLogger("safevlm").setLevel(logging.ERROR)  # process 0 tells what all of them would
        if not self.data.train_rows:
            check_trainer(self.trainer)
            check_output(self.trainer, self.output_dir, overwrite=self.overwrite, export=self.export)
            self.operating.check_fits(self.taxonomy)
            self.data.read(self.taxonomy, self.needs)
        check_batches(self.trainer, self.data.batches())
        if not self._built:
            self.build()
            self._built = True
        self.config = self.config.with_changes(untrained=False, **self._points_before())
        self.check_rows()
        check_batches(self.trainer, self.data.batches())  # rows may have been dropped
        self.weigh_classes()
        check_monitors(self.trainer, tuned=self.can_choose)
        self.prepare()
        if not self.trained:
            raise TrainingError(
                "no parameter is trained: everything is frozen; unfreeze what the run should train"
            )
        check_export(self.export, can_choose=self.can_choose)
        self.begin(run_record(self))
        log_class_counts(
            self.data.train_rows + self.data.clean_rows, self.data.tune_rows, self.config.taxonomy
        )
        LOGGER.info("%d trained parameters", sum(p.numel() for p in self.trained.values()))

    def _points_before(self) -> dict[str, Any]:
        """Calibration and thresholds before any is chosen: none, or those of the checkpoint, which then tell so."""
        names = ("calibration", "operating_point", "reading")
        if not self.operating.keep:
            return dict.fromkeys(names)
        kept = {name: getattr(self.config, name) for name in names}
        note = f", before training on {Path(self.data.table).name}"
        return {name: point and replace(point, data=point.data + note) for name, point in kept.items()}

    def weigh_classes(self) -> None:
        """Set the class weights from the rows of an epoch, where the loss is to be balanced."""
        if self.loss.class_weights == "balanced":
            self.class_weights = balanced_weights(self.data.rows_per_epoch(), self.config.taxonomy)

    @property
    def can_choose(self) -> bool:
        """Whether the tune rows can choose the best epoch: one has a label, or an answer that is trained on."""
        return any(
            row.level != IGNORED or row.category != IGNORED or (self.trains_answers and row.response.strip())
            for row in self.data.tune_rows
        )

    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return optimizer_steps(self.trainer, self.data.batches())

    # training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by epoch and number of the batch, so that a resumed run equals an uninterrupted one."""
        torch.manual_seed(
            hash_seed(self.data.seed, "dropout", self.current_epoch, batch_idx, self.global_rank)
        )

    def random_mask(self, batch: Batch, purpose: str, probability: float) -> list[bool]:
        """Per row whether it is selected for a purpose in this epoch; the same in whatever batch it is."""
        key = (self.data.seed, purpose, self.current_epoch)
        return [hash_uniform(*key, row) < probability for row in batch["index"].tolist()]

    def head_prompts(self, batch: Batch) -> list[str]:
        """What the head reads with each image in this epoch; empty for rows that are scored from the image alone.

        The prompts of rows whose label is that of image and prompt together are always read, and so are the words that
        a reader found in an image: alone, or after the prompt, as at inference. With `prompt_probability` 0 nothing is.
        """
        if not self.loss.prompt_probability:
            return [""] * len(batch["prompts"])
        mask = self.random_mask(batch, "prompt", self.loss.prompt_probability)
        after = self.random_mask(batch, "words after the prompt", 0.5)
        rows = zip(batch["prompts"], batch["read_texts"], batch["pairs"], mask, after, strict=True)
        return [
            (f"{prompt}\n{words}" if last and prompt else words)
            if words
            else (prompt if pair or chosen else "")
            for prompt, words, pair, chosen, last in rows
        ]

    def head_loss(self, output: ViewOutput | None, rows: list[int], batch: Batch) -> dict[str, Tensor]:
        """CE_level and CE_category of a batch; 0 without an output.

        Args:
            output: of the head, for the rows that have an image.
            rows: which rows of the batch these are.
            batch: all rows.
        """
        if output is None:
            zero = torch.zeros((), device=self.device)
            return {"level": zero, "category": zero}
        labels = {name: batch[name].to(self.device) for name in ("levels", "categories")}
        if (
            not self.loss.prompt_probability
        ):  # no prompt is read, so a pair has no label that could be learned
            pairs = torch.tensor(batch["pairs"], device=self.device)
            labels = {name: values.masked_fill(pairs, IGNORED) for name, values in labels.items()}
        return head_loss(output, labels["levels"], labels["categories"], rows, self.class_weights)

    def finish_step(self, batch: Batch, lm: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """L_LM + weight * (CE_level + CE_category), logged; every trained parameter takes part (DDP)."""
        loss = total_loss(lm, LossParts(parts["level"], parts["category"]), weight=self.loss.weight)
        size = len(batch["levels"])
        seen = torch.stack([loss, lm, parts["level"], parts["category"]]).detach().float()
        self.history.add(self.global_step + 1, size, seen)
        values = {"train/lm": lm, "train/level": parts["level"], "train/category": parts["category"]}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({name: value.detach() for name, value in values.items()}, batch_size=size)
        touched = torch.stack([p.reshape(-1)[:1].sum().float() for p in self.parameters() if p.requires_grad])
        return loss + 0.0 * touched.sum()

    # tuning

    def on_validation_epoch_start(self) -> None:
        """Forget the values of the last validation."""
        self._tuned, self._answered = {}, {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the head's logits of the image alone, and of image + prompt where there is one, and L_LM."""
        self._tuned.update(self.tune_rows(batch))
        if rows := self.tune_answers(batch):
            losses = self.answer_losses(batch, rows).detach().float().cpu()
            self._answered.update(zip(batch["index"][rows].tolist(), losses, strict=True))

    def tune_rows(self, batch: Batch) -> dict[int, TuneRow]:
        """Row number -> the head's logits and the labels, of the rows that have an image."""
        nothing, texts = [""] * len(batch["prompts"]), asked_texts(batch)
        variants = [nothing, texts] if any(texts) else [nothing]
        outputs, rows = self.scores(batch, *variants)
        return tune_rows(batch, outputs[0], outputs[-1], rows) if outputs else {}

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
        if tuned:
            metrics |= self._chosen_now(stacked(tuned))
        self.log_tuned(metrics)

    def log_tuned(self, metrics: dict[str, Tensor]) -> None:
        """Log metrics that every process has."""
        self.log_dict(metrics, rank_zero_only=False, sync_dist=False)
        self.history.add_tuned(self.global_step, self.current_epoch, metrics)

    def _chosen_now(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Temperature and threshold that this epoch's weights would get; none for too few rows, or where old ones stay."""
        if self.operating.keep:
            return {}
        with only_from(logging.ERROR, "safevlm.calibration"):  # the end of the run gives the reasons, once
            found = choose(self, values)
        metrics = {}
        if found["calibration"] is not None:
            metrics["tune/temperature"] = torch.tensor(found["calibration"].temperature)
        if found["operating_point"] is not None:
            metrics["tune/threshold"] = torch.tensor(found["operating_point"].threshold)
        return metrics

    # the end

    def on_fit_end(self) -> None:
        """Choose the weights, calibrate on the tune rows and write the folder; process 0 does, the others wait."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            LOGGER.warning("a trial run (trainer.fast_dev_run): %s is not written", self.output_dir)
            return
        finish(self, self._sums_before)
