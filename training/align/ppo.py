"""PPO from the model's own judged answers (arXiv 2507.11155): no preference data, no second copy of the model.

Each batch: sample answers, let the reward judge them, take the distance to the reference off, estimate each token's
advantage, and move policy and value head by the clipped losses. With `ppo.advantages group` the same is GRPO.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from safevlm.backbone import Backbone
from safevlm.errors import TrainingError
from safevlm.judges import TrainedJudge

from ..lora import Lora, lora_active
from ..options import Schedule
from .advantages import gae, group_advantages, whiten
from .data import AlignBatch
from .losses import masked_mean, policy_losses, value_losses
from .policy import Prompts, TokenScores
from .ppo_options import Ppo
from .rewards import JudgeReward, Rewards, Shaping, checked_rewards
from .rollout import Part, Rollout, bounds
from .samples import Sample
from .stage import AlignStage

SCHEDULE = Schedule(lr=3e-5)
LORA = Lora(r=128, alpha=256, dropout=0.0)
PPO, SHAPING = Ppo(), Shaping()
"""The paper's; dropout is 0, since it would tell the policy that samples from the one that is trained."""


class PpoTraining(AlignStage):
    """Proximal policy optimisation on sampled answers; the reference is the model itself with the LoRA layers off.

    Args:
        backbone: embedded name, folder or hub id of the vision-language model, or the folder of an alignment to go on from.
        output_dir: folder that the LoRA layers are written to, for `safevlm.aligned.load_aligned`.
        reward: a callable answers, samples -> rewards, by its import path, or a class of such; null: the log-likelihood of what
            the image is, by `safevlm.judges.TrainedJudge`. Measure with another judge.
        ppo: how answers are sampled, and how the policy is moved by them.
        shaping: how rewards become what is maximised.
        schedule: learning rate in AdamW (3e-5 in the paper), warm-up and decay.
        lora: of the LoRA layers; r 128 and alpha 256 in the paper. Dropout must be 0.
        shared: the other arguments of `AlignStage`.
    """

    def __init__(
        self,
        backbone: str,
        output_dir: str = "aligned-ppo",
        reward: Rewards | None = None,
        ppo: Ppo = PPO,
        shaping: Shaping = SHAPING,
        schedule: Schedule = SCHEDULE,
        lora: Lora = LORA,
        **shared: Any,
    ) -> None:
        super().__init__(backbone, output_dir=output_dir, schedule=schedule, lora=lora, **shared)
        if lora.dropout:
            raise ValueError(
                f"lora.dropout is {lora.dropout}; PPO compares a policy with the one that sampled the answers, which dropout would "
                "make another: give 0"
            )
        self.automatic_optimization = False
        self.reward: Rewards = reward or JudgeReward(TrainedJudge())
        self.ppo, self.shaping, self.new_tokens = ppo, shaping, ppo.max_new_tokens
        self.value_lora = "value" if ppo.advantages == "gae" and ppo.value_lora == "separate" else None
        self.value_head: nn.Linear | None = None

    def use(self, backbone: Backbone) -> None:
        """Take a loaded backbone, and put a value head of zeros on its LLM where the advantages need one."""
        super().use(backbone)
        if self.trainer.precision == "16-mixed":
            raise TrainingError(
                "PPO clips the gradients itself, which 16-mixed scales; give bf16-mixed or 32-true"
            )
        if self.ppo.advantages == "gae":
            self.value_head = nn.Linear(backbone.text_dim, 1, device=backbone.input_embeddings.weight.device)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def own_options(self) -> dict[str, Any]:
        """The reward's name, PPO and shaping."""
        reward = self.reward
        judge = f" of {reward.judge.name}" if isinstance(reward, JudgeReward) else ""
        groups: dict[str, Ppo | Shaping] = {"ppo": self.ppo, "shaping": self.shaping}
        return {
            "model.reward": getattr(reward, "__qualname__", type(reward).__qualname__) + judge,
            **{
                f"model.{group}.{name}": value
                for group, own in groups.items()
                for name, value in asdict(own).items()
            },
        }

    def steps_per_batch(self) -> int:
        """One for each inner epoch."""
        return self.ppo.inner_epochs

    # the algorithm

    def training_step(self, batch: AlignBatch, batch_idx: int) -> None:
        """Sample, judge, estimate, update."""
        samples, prompts = self.see(batch)
        rollout = self.roll_out(samples, prompts)
        found = checked_rewards(self.reward, rollout.texts, rollout.samples)
        of_answers = self.shaping.of_answers(found, rollout.lengths, rollout.ended)
        taught = (
            rollout.mask & ~of_answers.isnan().to(rollout.mask.device)[:, None]
        )  # what could not be judged teaches nothing
        rewards = self.shaping.of_tokens(of_answers, rollout.log_probs, rollout.reference, rollout.mask)
        advantages, returns = self.estimate(rewards, rollout.values, taught)
        self.show(rollout, found)
        if taught.any():
            for _ in range(self.ppo.inner_epochs):
                moved = self.update(rollout, advantages, returns, taught)
                if self.ppo.inner_kl is not None and moved > self.ppo.inner_kl:
                    break
        kl = masked_mean(rollout.log_probs - rollout.reference, rollout.mask)
        self.log_rollout(rollout, found, of_answers, kl)
        if self.ppo.stop_kl is not None and float(kl) > self.ppo.stop_kl:
            self.trainer.should_stop = True

    @torch.no_grad()
    def roll_out(self, samples: Sequence[Sample], prompts: Prompts) -> Rollout:
        """Sample answers, and score them with the policy, the reference and the value head."""
        ppo, policy, every = self.ppo, self.policy, self.ppo.answers_per_prompt
        prompts = prompts.repeated(every)
        answers = [
            answer
            for rows in bounds(len(prompts), ppo.micro_batch)
            for answer in policy.sample(
                prompts.part(rows), max_new_tokens=ppo.max_new_tokens, temperature=ppo.temperature
            )
        ]
        lengths = [len(answer) for answer in answers]
        groups = [
            Part(policy.answered(prompts.part(rows), answers[rows]), rows)
            for rows in bounds(len(answers), ppo.micro_batch)
        ]
        scores = [self.score(part, width=max(lengths)) for part in groups]
        with policy.reference():
            reference = [self.score(part, width=max(lengths)).log_probs for part in groups]
        return Rollout(
            [sample for sample in samples for _ in range(every)],
            policy.texts(answers),
            lengths,
            [policy.ended(answer) for answer in answers],
            groups,
            torch.cat([one.log_probs for one in scores]),
            torch.cat(reference),
            torch.cat([self.values(part, one) for part, one in zip(groups, scores, strict=True)]),
            torch.cat([one.mask for one in scores]),
        )

    def estimate(self, rewards: Tensor, values: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and returns, (B, T); the returns are what the value head learns."""
        if self.ppo.advantages == "group":
            return group_advantages(rewards, taught, size=self.ppo.answers_per_prompt), torch.zeros_like(
                rewards
            )
        advantages, returns = gae(rewards, values, taught, gamma=self.ppo.gamma, lam=self.ppo.lam)
        return whiten(advantages, taught), returns

    def update(self, rollout: Rollout, advantages: Tensor, returns: Tensor, taught: Tensor) -> float:
        """One optimizer step on all answers; returns how far the policy is from the one that sampled them, in nats per token.

        loss = policy + value_weight * value - entropy_weight * entropy, each a mean over the tokens of the batch.
        """
        ppo, tokens = self.ppo, taught.sum()
        totals: dict[str, float] = {}
        for part in rollout.parts:
            rows, found = part.rows, dict[str, Tensor]()

            def mean(values: Tensor, rows: slice = rows) -> Tensor:
                return (values * taught[rows]).sum() / tokens

            scores = self.score(part, width=taught.shape[1])
            old = rollout.log_probs[rows]
            losses, clipped = policy_losses(scores.log_probs, old, advantages[rows], clip=ppo.clip)
            found["policy"], found["entropy"] = mean(losses), mean(scores.entropies)
            found["clip_share"], found["moved"] = mean(clipped.float()), mean(old - scores.log_probs)
            loss = found["policy"] - ppo.entropy_weight * found["entropy"]
            if (
                self.value_head is None or self.value_lora is not None
            ):  # its own LoRA layers need their own pass
                self.manual_backward(loss)
                loss = loss.new_zeros(())
            if self.value_head is not None:
                with self.value_layers():
                    values, before = self.values(part, scores), rollout.values[rows]
                    found["value"] = mean(value_losses(values, before, returns[rows], clip=ppo.value_clip))
                    self.manual_backward(loss + ppo.value_weight * found["value"])
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach())
        self.step()
        moved = totals.pop("moved")
        self.log_dict(
            {f"train/{name}": value for name, value in totals.items()}, batch_size=len(rollout.texts)
        )
        return moved

    def step(self) -> None:
        """Clip the gradients, and move the weights and the learning rate."""
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        clip_grad_norm_([p for p in self.trained.values() if p.grad is not None], self.ppo.grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    # what it calls

    def score(self, part: Part, *, width: int) -> TokenScores:
        """The policy's scores of a part's answers, or the reference's within `policy.reference()`."""
        return self.policy.scores(part.answered, width=width, temperature=self.ppo.temperature)

    def value_layers(self) -> AbstractContextManager[None]:
        """The context in which the LLM is the value head's."""
        return nullcontext() if self.value_lora is None else lora_active(self.policy.model, self.value_lora)

    def values(self, part: Part, scores: TokenScores) -> Tensor:
        """(B, T) float32, the value of the state before each token; 0 without a value head.

        Args:
            part: the answers.
            scores: of the policy, whose states are read where the LoRA layers are shared.
        """
        if self.value_head is None:
            return torch.zeros_like(scores.log_probs)
        states = scores.states
        if self.value_lora is not None:
            with self.value_layers():
                states = self.score(part, width=scores.mask.shape[1]).states
        found: Tensor = self.value_head(states.float())[..., 0]
        return found.masked_fill(~scores.mask, 0.0)

    def log_rollout(
        self, rollout: Rollout, found: Sequence[float | None], of_answers: Tensor, kl: Tensor
    ) -> None:
        """Log what was sampled, each a mean over the answers; the reward is the callable's own, unshaped."""
        known = [value for value in found if value is not None]
        count = len(rollout.texts)
        values: dict[str, Any] = {
            "kl": kl,
            "length": sum(rollout.lengths) / count,
            "ended": sum(rollout.ended) / count,
            "na_share": 1 - len(known) / count,
        }
        if known:
            values["shaped_reward"] = of_answers.nanmean()
            self.log("train/reward", sum(known) / len(known), prog_bar=True, batch_size=count)
        self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=count)

    def show(self, rollout: Rollout, found: Sequence[float | None]) -> None:
        """Write some of the answers down."""
        folder = Path(f"{self.output_dir}.run")
        folder.mkdir(parents=True, exist_ok=True)
        rows = list(zip(rollout.samples, rollout.texts, found, strict=True))[: self.ppo.shown_answers]
        with (folder / "answers.jsonl").open("a", encoding="utf-8") as file:
            for sample, text, reward in rows:
                row = {
                    "step": self.global_step,
                    "prompt": str(sample.prompt),
                    "concept": sample.concept,
                    "gold": sample.gold,
                }
                file.write(json.dumps({**row, "answer": text, "reward": reward}, ensure_ascii=False) + "\n")
