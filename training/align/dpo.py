"""DPO: the model is taught to prefer the chosen answer of a pair to the rejected one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..options import Schedule
from .data import AlignBatch
from .losses import dpo_losses
from .policy import Prompts
from .samples import Sample
from .stage import AlignStage

SCHEDULE = Schedule(lr=2e-6)
"""The paper's."""


class DpoTraining(AlignStage):
    """Direct preference optimisation; the reference is the model itself with the LoRA layers off.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model, or the folder of an alignment to go on from.
        output_dir: folder that the LoRA layers are written to, for `safevlm.aligned.load_aligned`.
        beta: how closely the policy is held to the reference, above 0; 0.1 in the paper.
        schedule: learning rate in AdamW (2e-6 in the paper), warm-up and decay.
        shared: the other arguments of `AlignStage`.
    """

    def __init__(
        self,
        backbone: str,
        output_dir: str = "aligned-dpo",
        beta: float = 0.1,
        schedule: Schedule = SCHEDULE,
        **shared: Any,
    ) -> None:
        super().__init__(backbone, output_dir=output_dir, schedule=schedule, **shared)
        if not 0 < beta < math.inf:
            raise ValueError(f"beta is {beta}; a number above 0 is needed")
        self.beta = beta

    def answers(self, sample: Sample) -> Sequence[str]:
        """Both of the pair."""
        return (sample.chosen, sample.rejected)

    def own_options(self) -> dict[str, Any]:
        """Beta."""
        return {"model.beta": self.beta}

    def training_step(self, batch: AlignBatch, batch_idx: int) -> Tensor:
        """The loss of the batch's pairs."""
        self.policy.set_dropout(True)  # the reference has none: its LoRA layers are off
        samples, prompts = self.see(batch)
        chosen = self._log_ratios(prompts, [sample.chosen for sample in samples])
        rejected = self._log_ratios(prompts, [sample.rejected for sample in samples])
        loss = dpo_losses(chosen, rejected, beta=self.beta).mean()
        margin = (chosen - rejected).detach()
        values = {"margin": self.beta * margin.mean(), "accuracy": (margin > 0).float().mean()}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(samples))
        self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(samples))
        return loss

    def _log_ratios(self, prompts: Prompts, answers: Sequence[str]) -> Tensor:
        """(B,) log pi(y | x) - log pi_ref(y | x), summed over each answer's tokens."""
        answered = self.policy.answered(prompts, answers)
        with torch.no_grad(), self.policy.reference():
            reference = self.policy.scores(answered).log_probs.sum(dim=1)
        return self.policy.scores(answered).log_probs.sum(dim=1) - reference
