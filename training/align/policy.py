"""The model that is aligned: a frozen backbone with LoRA layers, which samples answers and gives their log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn

from safevlm.backbone import (
    Backbone,
    Inputs,
    TowerPass,
    checkpointed_layers,
    encode,
    injected,
    last_states,
    make_chat,
)
from safevlm.checkpoint import lora_disabled
from safevlm.errors import TrainingError
from safevlm.types import IGNORED, Chat

from ..finite import REMEDY
from ..lora import Lora, inject_lora, unfreeze_lora
from .samples import Sample

NEVER = -1e9
"""The logit of what is not sampled; finite, so that entropies are."""


@dataclass(frozen=True)
class Prompts:
    """Prompts with their images, which the tower has seen once.

    Args:
        chats: checked.
        images: RGB, of each chat.
        numbers: of these images in the tower's pass.
        passed: the tower's pass over all images of the batch; None where there is none.
    """

    chats: tuple[Chat, ...]
    images: tuple[tuple[Image.Image, ...], ...]
    numbers: tuple[tuple[int, ...], ...]
    passed: TowerPass | None

    def __len__(self) -> int:
        return len(self.chats)

    def part(self, rows: slice) -> Prompts:
        """Some of them, of the same pass."""
        return Prompts(self.chats[rows], self.images[rows], self.numbers[rows], self.passed)

    def repeated(self, times: int) -> Prompts:
        """Each of them several times, one after another, of the same pass."""
        rows = [row for row in range(len(self)) for _ in range(times)]
        return Prompts(
            tuple(self.chats[row] for row in rows),
            tuple(self.images[row] for row in rows),
            tuple(self.numbers[row] for row in rows),
            self.passed,
        )

    def encode(self, backbone: Backbone, answers: Sequence[str | Sequence[int]] | None = None) -> Inputs:
        """Inputs of the backbone; raises ValueError for a prompt and answer that are longer than the context."""
        images = [image for own in self.images for image in own]
        rows = [number for own in self.numbers for number in own]
        return encode(
            backbone, self.chats, images, safety_tokens=0, answers=answers, passed=self.passed, rows=rows
        )


@dataclass(frozen=True)
class Answered:
    """Prompts with answers, encoded once for several passes of the model.

    Args:
        inputs: as the backbone takes them, with labels.
        passed: the tower's pass over the images; None where there is none.
    """

    inputs: Inputs
    passed: TowerPass | None


@dataclass(frozen=True)
class TokenScores:
    """What the model says of each token of some answers, filled up on the right to T tokens.

    Args:
        logits: (B, T, vocabulary) float32.
        tokens: (B, T) int64.
        mask: (B, T) bool, where the answers' tokens are.
        states: (B, T, dim) the LLM's last hidden states before each token.
    """

    logits: Tensor
    tokens: Tensor
    mask: Tensor
    states: Tensor

    @cached_property
    def log_probs(self) -> Tensor:
        """(B, T) float32 in nats, of each token; 0 outside the mask."""
        chosen = self.logits.gather(-1, self.tokens[..., None])[..., 0] - self.logits.logsumexp(-1)
        return chosen.masked_fill(~self.mask, 0.0)

    @cached_property
    def entropies(self) -> Tensor:
        """(B, T) float32 in nats, of each token's distribution; 0 outside the mask."""
        log_probs = self.logits.log_softmax(-1)
        return -(log_probs.exp() * log_probs).sum(-1).masked_fill(~self.mask, 0.0)


class Policy(nn.Module):
    """A backbone whose LLM has LoRA layers; tower, projector and the LLM's own weights stay frozen.

    Args:
        backbone: frozen, without LoRA layers.
        lora: of the new ones, which change nothing before they are trained.
        value_lora: name of a second set of LoRA layers, for a value head; None: none.
        gradient_checkpointing: whether the LLM's layers are run again in the backward pass, to save memory.
    """

    def __init__(
        self,
        backbone: Backbone,
        lora: Lora,
        *,
        value_lora: str | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.model: nn.Module = backbone.model
        self.gradient_checkpointing = gradient_checkpointing
        inject_lora(self.model, lora, second=value_lora)
        self._dropouts = unfreeze_lora(self.model)
        self.set_dropout(False)

    def set_dropout(self, training: bool) -> None:
        """`train()` does not reach LoRA's dropout: the frozen layers around it stay in eval mode."""
        for part in self._dropouts:
            part.train(training)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within the context the model is its own reference: the same weights with the LoRA layers off."""
        with lora_disabled(self.model):
            yield

    def see(self, samples: Sequence[Sample], images: Sequence[Sequence[Image.Image]]) -> Prompts:
        """The samples' prompts, with one pass of the tower over their images."""
        flat = [image for own in images for image in own]
        tower = self.backbone.tower
        passed = tower(tower.preprocess(flat)) if flat else None
        chats = tuple(make_chat(sample.prompt, len(own)) for sample, own in zip(samples, images, strict=True))
        numbers = iter(range(len(flat)))
        return Prompts(
            chats,
            tuple(map(tuple, images)),
            tuple(tuple(islice(numbers, len(own))) for own in images),
            passed,
        )

    def answered(self, prompts: Prompts, answers: Sequence[str | Sequence[int]]) -> Answered:
        """Prompts with answers as texts, or as the tokens that were sampled; raises ValueError for those that are too long."""
        return Answered(prompts.encode(self.backbone, answers), prompts.passed)

    @torch.no_grad()
    def sample(self, prompts: Prompts, *, max_new_tokens: int, temperature: float) -> list[list[int]]:
        """Draw one answer per prompt from the model's own distribution, whatever its generation config says.

        Special tokens but those that end an answer are never drawn: one that stands for an image would break the prompt.

        Returns:
            Token ids of each answer, up to the token that ended it or `max_new_tokens`; at least one.

        Raises:
            TrainingError: logits that are not finite.
        """
        inputs = prompts.encode(self.backbone)
        with injected(self.backbone, inputs, tokens=None, passed=prompts.passed):
            made = self.backbone.model.generate(
                **self.backbone.on_device(inputs.tensors),
                max_new_tokens=max_new_tokens,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                num_beams=1,
                repetition_penalty=1.0,
                suppress_tokens=self.unsampled,
                logits_processor=[_refuse_not_finite],
            )
        answers = made[:, inputs.tensors["input_ids"].shape[1] :].tolist()
        return [_ended(answer, self.backbone.end_ids) for answer in answers]

    @cached_property
    def unsampled(self) -> list[int]:
        """Tokens that are never sampled."""
        return sorted(self.backbone.renderer.specials.ids - set(self.backbone.end_ids))

    def ended(self, answer: Sequence[int]) -> bool:
        """Whether an answer's last token is one that ends it."""
        return answer[-1] in self.backbone.end_ids

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """The answers as text, without special tokens."""
        decoded = self.backbone.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def scores(
        self, answered: Answered, *, width: int | None = None, temperature: float | None = None
    ) -> TokenScores:
        """Run the model over prompts and answers.

        Args:
            answered: whose tokens are scored.
            width: T of the scores; None: the longest answer's.
            temperature: scores are those of sampling: the logits are divided by it, and what is never sampled takes no
                part; None: the model's own.
        """
        inputs, labels = answered.inputs, answered.inputs.labels
        assert labels is not None  # answers were given
        layers = self.backbone.decoder_layers
        recomputed = checkpointed_layers(layers) if self.gradient_checkpointing else nullcontext()
        with recomputed, last_states(self.backbone) as states:
            with injected(self.backbone, inputs, tokens=None, passed=answered.passed):
                logits = self.backbone.model(
                    **self.backbone.on_device(inputs.tensors), use_cache=False
                ).logits
        labels = labels.to(logits.device)
        told = labels != IGNORED
        lengths = told.sum(dim=1)
        steps = torch.arange(int(lengths.max()) if width is None else width, device=logits.device)
        places = (told.int().argmax(dim=1)[:, None] + steps).clamp(max=labels.shape[1] - 1)
        rows = torch.arange(len(labels), device=logits.device)[:, None]
        mask = steps < lengths[:, None]
        logits = logits[rows, places - 1].float()
        if temperature is not None:
            never = torch.tensor(self.unsampled, dtype=torch.int64, device=logits.device)
            logits = (logits / temperature).index_fill(-1, never, NEVER)
        return TokenScores(
            logits,
            labels[rows, places].masked_fill(~mask, 0),
            mask,
            states[0][rows.to(states[0].device), (places - 1).to(states[0].device)],
        )


def _refuse_not_finite(_: Tensor, logits: Tensor) -> Tensor:
    """A processor of logits that changes none; what is never sampled is -inf already."""
    if not bool(logits.amax(dim=-1).isfinite().all()):
        raise TrainingError(
            f"not finite: the logits of answers that are sampled. The run stopped and wrote no weights; {REMEDY}"
        )
    return logits


def _ended(answer: list[int], ends: Sequence[int]) -> list[int]:
    """Up to the first token that ends it; what follows is padding."""
    end = next((place for place, token in enumerate(answer) if token in ends), len(answer))
    return answer[: end + 1]
