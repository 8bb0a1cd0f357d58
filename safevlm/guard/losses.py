"""What training needs of a guard: the head's output with gradients, and the losses of answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from safevlm import modules
from safevlm.backbone import TowerPass, checkpointed_layers, encode, make_chat, with_hint
from safevlm.viewing import ViewOutput, view_output

if TYPE_CHECKING:
    from .model import SafeVLM


@dataclass(frozen=True)
class SafetyOutput:
    """What a training step needs.

    Args:
        lm_losses: (B,) mean cross-entropy of each answer's tokens, in nats.
        head: of each row that has an image, in order; None where no row has one.
    """

    lm_losses: Tensor
    head: ViewOutput | None

    @property
    def lm_loss(self) -> Tensor:
        """Mean over the answers, each counting the same whatever its length."""
        return self.lm_losses.mean()


def head_output(guard: SafeVLM, passed: TowerPass, prompts: Sequence[str]) -> ViewOutput:
    """The plain (not folded) modules on a tower's pass, with gradients; one prompt per image, "" for none."""
    return view_output(
        guard.safety,
        passed.views,
        like=guard.safety.projector.last.weight,
        pool_grid=guard.config.pool_grid,
        table=guard.backbone.prompt_table,
        prompts=prompts,
    )


def answer_losses(
    guard: SafeVLM,
    images: Sequence[Image.Image | None],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    hints: Sequence[str] | None = None,
    passed: TowerPass | None = None,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """The language model's part of a step: (B,) float32, mean cross-entropy of each answer's tokens, in nats.

    Args:
        images: one RGB image or None per row.
        prompts, answers: one per row.
        hints: one per row, put before the prompt; an empty one leaves it as it is.
        passed: the tower's pass over the images that are not None, where there is one already.
        gradient_checkpointing: run the LLM's layers again in the backward pass, to save memory.

    Raises:
        BackboneError: gradient checkpointing of a model none of whose layers can be checkpointed.
        ValueError: a row longer than the LLM's context.
    """
    backbone = guard.backbone
    given = [image for image in images if image is not None]
    if given and passed is None:
        passed = backbone.tower(backbone.tower.preprocess(given))
    chats = [make_chat(p, int(i is not None)) for p, i in zip(prompts, images, strict=True)]
    if hints is not None:
        chats = [with_hint(chat, hint) if hint else chat for chat, hint in zip(chats, hints, strict=True)]
    inputs = encode(
        backbone, chats, given, safety_tokens=guard.config.num_tokens, answers=answers, passed=passed
    )
    recomputed = checkpointed_layers(backbone.model) if gradient_checkpointing else nullcontext()
    injected = backbone.injected(
        inputs,
        tokens=guard.safety.tokens.prompt,
        passed=passed,
        images=range(len(given)),
        counts=[1] * len(given),
    )
    with recomputed, injected:
        logits = backbone.model(**backbone.on_device(inputs.tensors), use_cache=False).logits
    assert inputs.labels is not None  # answers were given
    return modules.answer_losses(logits, inputs.labels)


def safety_output(
    guard: SafeVLM,
    images: Sequence[Image.Image | None],
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    hints: Sequence[str] | None = None,
    head_prompts: Sequence[str] | None = None,
    gradient_checkpointing: bool = False,
) -> SafetyOutput:
    """Losses and logits of one training step, on one pass of the tower.

    Args:
        images, prompts, answers, hints, gradient_checkpointing: as in `answer_losses`.
        head_prompts: one per row, what the head reads; an empty one means the image alone, None the prompts.
    """
    rows = [row for row, image in enumerate(images) if image is not None]
    tower = guard.backbone.tower
    passed = tower(tower.preprocess([image for image in images if image is not None])) if rows else None
    texts = prompts if head_prompts is None else head_prompts
    head = None if passed is None else head_output(guard, passed, [texts[row] for row in rows])
    losses = answer_losses(
        guard,
        images,
        prompts,
        answers,
        hints=hints,
        passed=passed,
        gradient_checkpointing=gradient_checkpointing,
    )
    return SafetyOutput(losses, head)
