"""Metrics on the tune rows."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from safevlm.modules import safety_loss
from safevlm.types import IGNORED
from safevlm.viewing import ViewOutput

from .batch import Batch

TuneRow: TypeAlias = "tuple[Tensor, ...]"
"""Level and category logits of the image alone, level logits with `asked_texts`, level and category of the image, level
of image and text together (-100 where there is no text)."""

METRICS: dict[str, Literal["min", "max"]] = {
    "tune/loss": "min",
    "tune/head": "min",
    "tune/lm": "min",
    "tune/auroc": "max",
    "tune/auroc_prompt": "max",
    "tune/level_accuracy": "max",
    "tune/category_accuracy": "max",
    "tune/refused_risky": "max",
    "tune/refused_safe": "min",
}
"""What may be measured on the tune rows, and which end is the better one."""


def gathered(trainer: Trainer, found: dict[int, Any]) -> dict[int, Any]:
    """Every process's values by row number; each row once, whatever the number of processes."""
    if trainer.world_size == 1:
        return found
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, found)
    return {row: values for part in parts for row, values in sorted(part.items())}


def asked_texts(batch: Batch) -> list[str]:
    """What the head is asked with each image: the words that a reader found in it, else the prompt."""
    return [words or prompt for words, prompt in zip(batch["read_texts"], batch["prompts"], strict=True)]


def tune_rows(batch: Batch, alone: ViewOutput, prompted: ViewOutput, rows: list[int]) -> dict[int, TuneRow]:
    """Row number -> what the metrics need of the row, on the host.

    Args:
        batch: of tune rows.
        alone, prompted: the head's output for the images alone, and with `asked_texts`.
        rows: the rows of the batch that the outputs are of.
    """
    (levels, categories), (with_prompt, _) = alone.logits(), prompted.logits()
    found, texts = {}, asked_texts(batch)
    unknown = torch.tensor(IGNORED)
    for number, row in enumerate(rows):
        logits = (levels[number], categories[number], with_prompt[number])
        level, category, pair = batch["levels"][row], batch["categories"][row], batch["pairs"][row]
        own = (unknown, unknown) if pair else (level, category)
        labels = (*own, level if texts[row] else unknown)
        found[int(batch["index"][row])] = tuple(value.detach().cpu() for value in (*logits, *labels))
    return found


def stacked(tuned: dict[int, TuneRow]) -> dict[str, Tensor]:
    """Values of tune rows as one tensor each, in the order of the rows."""
    names = ("level", "category", "level_prompt", "levels", "categories", "levels_prompt")
    ordered = [tuned[row] for row in sorted(tuned)]
    return {name: torch.stack(values) for name, values in zip(names, zip(*ordered, strict=True), strict=True)}


def tune_metrics(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """AUROC of risky against safe, accuracies and CE_level + CE_category of the tune rows that are labelled."""
    levels, categories = values["levels"], values["categories"]
    known, sorted_ = levels != IGNORED, categories != IGNORED
    metrics = {"tune/head": safety_loss(values["level"], values["category"], levels, categories).total}
    if known.any():
        metrics["tune/level_accuracy"] = _accuracy(values["level"][known], levels[known])
    for name, logits, labels in (
        ("tune/auroc", values["level"], levels),
        ("tune/auroc_prompt", values["level_prompt"], values["levels_prompt"]),
    ):
        rows = labels != IGNORED
        risky = (labels[rows] > 0).long()
        if 0 < int(risky.sum()) < len(risky):
            metrics[name] = binary_auroc(1 - logits[rows].softmax(-1)[:, 0], risky)
    if sorted_.any():
        metrics["tune/category_accuracy"] = _accuracy(values["category"][sorted_], categories[sorted_])
    return metrics


def all_metrics(
    tuned: dict[int, TuneRow], answered: dict[int, Tensor], *, weight: float
) -> dict[str, Tensor]:
    """`tune_metrics`, `tune/lm` of the rows with answers, and `tune/loss`, which the best epoch is chosen by.

    tune/loss = tune/lm + weight * tune/head, as in training; a term without rows is left out.
    """
    metrics = tune_metrics(stacked(tuned)) if tuned else {}
    lm = torch.stack([answered[row] for row in sorted(answered)]).mean() if answered else torch.zeros(())
    if answered:
        metrics["tune/lm"] = lm
    if metrics:
        head = metrics.get("tune/head", torch.zeros(()))
        metrics["tune/loss"] = lm + weight * head
    return metrics


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) == labels).float().mean()
