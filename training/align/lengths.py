"""Prompts that leave no room for an answer in the model's context: named before training begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from safevlm.backbone import Backbone, PromptLengths, make_chat
from safevlm.data import image_size
from safevlm.errors import DataError

from .samples import Sample

SHOWN = 5
"""Samples that an error message lists."""


def check_room(
    backbone: Backbone,
    samples: Sequence[Sample],
    answers: Callable[[Sample], Sequence[str]],
    *,
    new_tokens: int,
) -> None:
    """Refuse prompts that do not fit into the context with their images and an answer.

    Args:
        backbone: whose context it is.
        samples: every prompt with every image.
        answers: of a sample, that are trained on.
        new_tokens: that are sampled; 0 where none are.

    Raises:
        DataError: prompts that are too long (row and lengths of each), and the remedy.
    """
    lengths, limit, bad = PromptLengths(backbone, safety_tokens=0), backbone.context_length, list[str]()
    counted: dict[str, tuple[int, int]] = {}
    for sample in samples:
        sizes = [(64, 64) if backbone.family.one_length else image_size(image) for image in sample.images]
        texts = answers(sample) or ("",)
        key = repr((sample.prompt, sizes, texts))  # most images have the same questions
        if key not in counted:
            chat = make_chat(sample.prompt, len(sizes))
            told = [lengths(chat, sizes, answer) for answer in texts]
            counted[key] = told[0][0], max(new_tokens, *(length for _, length in told))
        prompt, answer = counted[key]
        if prompt + answer > limit:
            bad.append(f"{sample.where}: {prompt} tokens with its images, and {answer} for the answer")
    if bad:
        listed = "\n  ".join([*bad[:SHOWN], *["..."][: len(bad) > SHOWN]])
        remedy = "shorten the prompts" + (
            ", or lower --model.ppo.max_new_tokens" if new_tokens else " or answers"
        )
        raise DataError(
            f"{len(bad)} prompts leave no room for their answer in the model's {limit} positions; {remedy}:\n  {listed}"
        )
