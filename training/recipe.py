"""What both stages share: loading, optimizer, tune metrics, lean checkpoints, and the folder at the end."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.functional.classification import binary_auroc

from safevlm import checkpoint
from safevlm.backbone import load_backbone
from safevlm.card import model_card
from safevlm.config import SafetyConfig
from safevlm.errors import CheckpointError
from safevlm.model import SafeVLM
from safevlm.modules import LossParts, SafetyModules, safety_loss, total_loss
from safevlm.taxonomy import Taxonomy
from safevlm.viewing import ViewOutput

from .calibration import calibrate
from .datamodule import Batch, SafetyDataModule
from .draw import draw
from .options import Loss, Schedule, Sizes, backbone_place
from .table import IGNORED, Needs

LOGGER = logging.getLogger(__name__)


class Recipe(LightningModule):
    """Base of the stages; the constructor touches neither disk nor network."""

    default_warmup = 0
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
        self._tuned: dict[int, tuple[Tensor, ...]] = {}
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

    def setup(self, stage: str) -> None:
        """Refuse to overwrite, load the parts, weigh the classes."""
        if (self.output_dir / checkpoint.CONFIG).exists() and not self.overwrite:
            raise CheckpointError(
                f"{self.output_dir} already holds a checkpoint; give another output_dir, or overwrite it "
                "(--model.overwrite true)"
            )
        if not self._built:
            self.build()
            self._built = True
        self.config = self.config.with_changes(calibration=None)
        self.check_rows()
        rows = self.data.train_rows + self.data.clean_rows
        if self.loss.class_weights == "balanced":
            taxonomy = self.config.taxonomy
            self.class_weights = {
                "level": _balanced([row.level for row in rows], len(taxonomy.levels)),
                "category": _balanced([row.category for row in rows], len(taxonomy.categories)),
            }
        self.prepare()
        LOGGER.info("%d trained parameters", sum(p.numel() for p in self.parameters() if p.requires_grad))

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
        self._tuned = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the head's logits of the image alone, and of image + prompt where there is one."""
        self._tuned.update(self._tune_rows(batch))

    def _tune_rows(self, batch: Batch) -> dict[int, tuple[Tensor, ...]]:
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
        tuned = self._tuned
        if self.trainer.world_size > 1:
            shares: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(shares, tuned)
            tuned = {row: values for share in shares for row, values in share.items()}
        if tuned and not self.trainer.sanity_checking:
            self.log_dict(tune_metrics(_stacked(tuned)), rank_zero_only=False, sync_dist=False)

    # checkpoints

    @property
    def trained(self) -> dict[str, Tensor]:
        """Name -> parameter of all that this stage trains."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained; frozen weights come from where they were loaded."""
        trained = self.trained
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare names and sizes with what this stage trains, then complete the frozen rest."""
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
        """Calibrate on the tune rows and write the folder; one process does."""
        if self.trainer.is_global_zero:
            self.eval()
            calibration = None
            with torch.no_grad():
                tuned = {}
                for batch in self.data.tune_dataloader():
                    tuned.update(self._tune_rows(batch))
            if tuned:
                values = _stacked(tuned)
                prompted = values["prompted"]
                logits = torch.cat([values["level"], values["level_prompt"][prompted]])
                labels = torch.cat([values["levels"], values["levels"][prompted]])
                items = int((values["levels"] != IGNORED).sum())
                calibration = calibrate(
                    logits, labels, data=f"{Path(self.data.table).name}, tune split", items=items
                )
            self.config = self.config.with_changes(calibration=calibration)
            self.save_folder(self.output_dir, self.config)
            LOGGER.info("wrote %s", self.output_dir)
        self.trainer.strategy.barrier("safevlm-written")


def open_guard(backbone: str | None, start: str | None, sizes: Sizes, dtype: str) -> SafeVLM:
    """Fresh modules on a backbone, or a checkpoint to continue (on another copy of its backbone where one is given)."""
    place, name = backbone_place(backbone) if backbone is not None else (None, None)
    if start is None:
        assert place is not None
        return SafeVLM.attach(load_backbone(place, dtype=dtype), sizes.config().with_changes(backbone=name))
    guard = SafeVLM.from_pretrained(start, backbone=place, dtype=dtype)
    guard.config = guard.config.with_changes(backbone=name or guard.config.backbone)
    return guard


def _balanced(labels: list[int], classes: int) -> Tensor:
    """n / (classes x rows of the class), (classes,) float32; 0 for a class without rows."""
    counts = torch.bincount(
        torch.tensor([label for label in labels if label != IGNORED] or [0]), minlength=classes
    )
    present = int((counts > 0).sum())
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), 0.0).float()


def _stacked(tuned: dict[int, tuple[Tensor, ...]]) -> dict[str, Tensor]:
    names = ("level", "category", "level_prompt", "levels", "categories", "prompted")
    return {
        name: torch.stack(values)
        for name, values in zip(names, zip(*tuned.values(), strict=True), strict=True)
    }


def tune_metrics(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """AUROC of risky against safe, accuracies and cross entropy of the tune rows that are labelled."""
    levels, categories = values["levels"], values["categories"]
    known, sorted_ = levels != IGNORED, categories != IGNORED
    parts = safety_loss(values["level"], values["category"], levels, categories)
    metrics = {"tune/loss": parts.total}
    if known.any():
        metrics["tune/level_accuracy"] = _accuracy(values["level"][known], levels[known])
        for name, key, rows in (
            ("tune/auroc", "level", known),
            ("tune/auroc_prompt", "level_prompt", known & values["prompted"]),
        ):
            risky = (levels[rows] > 0).long()
            if 0 < int(risky.sum()) < len(risky):
                metrics[name] = binary_auroc(1 - values[key][rows].softmax(-1)[:, 0], risky)
    if sorted_.any():
        metrics["tune/category_accuracy"] = _accuracy(values["category"][sorted_], categories[sorted_])
    return metrics


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) == labels).float().mean()
