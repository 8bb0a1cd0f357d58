"""What training needs of a guard: the losses of the language model and the output of the head, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image
from torch import Tensor

from safevlm.backbone import (
    Backbone,
    TowerPass,
    checkpointed_layers,
    encode,
    injected,
    make_chat,
    with_hint,
)
from safevlm.modules import SafetyModules, answer_losses
from safevlm.viewing import ViewOutput, head_output

Hints: TypeAlias = "Sequence[str] | Callable[[ViewOutput | None], Sequence[str]] | None"
"""One per row, or what makes them of the head's output, which is None where no row has an image; None: no hints."""


@dataclass(frozen=True)
class SafetyOutput:
    """What a training step needs.

    Args:
        lm_losses: (B,) mean cross-entropy of each answer's tokens, in nats.
        head: the head's output for the rows that have an image, in order; None where no row has one.
    """

    lm_losses: Tensor
    head: ViewOutput | None

    @property
    def lm_loss(self) -> Tensor:
        """Mean over the answers, each counting the same whatever its length."""
        return self.lm_losses.mean()


def training_output(
    backbone: Backbone,
    safety: SafetyModules,
    images: Sequence[Image.Image | None],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    hints: Hints = None,
    head_prompts: Sequence[str] | None = None,
    gradient_checkpointing: bool = False,
) -> SafetyOutput:
    """Losses and logits of one training step; the tower runs once for the head and the language model.

    Args:
        hints: one per row, put before the prompt that the LLM reads; an empty one leaves it as it is.
        head_prompts: one per row, what the head reads; an empty one means the image alone. None: the prompts.
        backbone, safety, images, prompts, answers, gradient_checkpointing: as in `lm_losses`.
    """
    given = [image for image in images if image is not None]
    passed = backbone.tower(backbone.tower.preprocess(given)) if given else None
    head = None
    if passed is not None:
        texts = prompts if head_prompts is None else head_prompts
        read = [text for text, image in zip(texts, images, strict=True) if image is not None]
        head = head_output(safety, passed.views, table=backbone.prompt_table, prompts=read)
    losses = lm_losses(
        backbone,
        safety,
        images,
        prompts,
        answers,
        hints=hints(head) if callable(hints) else hints,
        passed=passed,
        gradient_checkpointing=gradient_checkpointing,
    )
    return SafetyOutput(losses, head)


def lm_losses(
    backbone: Backbone,
    safety: SafetyModules,
    images: Sequence[Image.Image | None],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    hints: Sequence[str] | None = None,
    passed: TowerPass | None = None,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """The language model's loss on answers, with safety tokens in the prompts that have an image.

    Args:
        backbone: the frozen model, with LoRA layers or without.
        safety: its safety tokens get gradients.
        images: one RGB image per row, or None.
        prompts: one per row.
        answers: one per row.
        hints: one per row, put before the prompt; an empty one leaves it as it is. None: no hints.
        passed: the tower's pass over the images that are not None; None: the tower is run here.
        gradient_checkpointing: run the LLM's layers again in the backward pass, to save memory.

    Returns:
        (B,) float32, mean cross-entropy of each answer's tokens, in nats.

    Raises:
        ValueError: a prompt and its answer are longer than the LLM's context.
        BackboneError: the LLM's layers cannot be checkpointed.
    """
    given = [image for image in images if image is not None]
    if given and passed is None:
        passed = backbone.tower(backbone.tower.preprocess(given))
    chats = [make_chat(p, int(i is not None)) for p, i in zip(prompts, images, strict=True)]
    if hints is not None:
        chats = [with_hint(chat, hint) if hint else chat for chat, hint in zip(chats, hints, strict=True)]
    tokens = safety.tokens.prompt
    inputs = encode(backbone, chats, given, safety_tokens=len(tokens), answers=answers, passed=passed)
    recomputed = checkpointed_layers(backbone.decoder_layers) if gradient_checkpointing else nullcontext()
    with recomputed, injected(backbone, inputs, tokens=tokens, passed=passed):
        logits = backbone.model(**backbone.on_device(inputs.tensors), use_cache=False).logits
    assert inputs.labels is not None  # answers were given
    return answer_losses(logits, inputs.labels)
