"""SFT: the model is taught to give the gold templates, or the chosen answers of a preference file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..options import Schedule
from .data import AlignBatch
from .losses import masked_mean
from .samples import Sample
from .stage import AlignStage

SCHEDULE = Schedule(lr=3e-5)
"""The paper's."""


class SftTraining(AlignStage):
    """Supervised fine-tuning on gold answers: the mean cross entropy of each answer's tokens, then over the answers.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model, or the folder of an alignment to go on from.
        output_dir: folder that the LoRA layers are written to, for `safevlm.aligned.load_aligned`.
        schedule: learning rate in AdamW (3e-5 in the paper), warm-up and decay.
        shared: the other arguments of `AlignStage`.
    """

    def __init__(
        self,
        backbone: str,
        output_dir: str = "aligned-sft",
        schedule: Schedule = SCHEDULE,
        **shared: Any,
    ) -> None:
        super().__init__(backbone, output_dir=output_dir, schedule=schedule, **shared)

    def answers(self, sample: Sample) -> Sequence[str]:
        """The chosen one."""
        return (sample.chosen,)

    def training_step(self, batch: AlignBatch, batch_idx: int) -> Tensor:
        """The loss of the batch's gold answers."""
        self.policy.set_dropout(True)
        samples, prompts = self.see(batch)
        scores = self.policy.scores(self.policy.answered(prompts, [sample.chosen for sample in samples]))
        lengths = scores.mask.sum(dim=1)
        loss = -(scores.log_probs.sum(dim=1) / lengths).mean()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(samples))
        entropy = masked_mean(scores.entropies.detach(), scores.mask)
        self.log("train/entropy", entropy, batch_size=len(samples))
        return loss
