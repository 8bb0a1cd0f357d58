"""Defences by words alone, to compare with: they change what is asked, and nothing in the model.

The ideas are of the papers named below, the words are our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from PIL import Image

Answer: TypeAlias = "Callable[[Sequence[Image.Image | None], Sequence[str]], Sequence[str]]"
"""Images (None: text alone) and prompts -> answers, such as a batch through `SafeVLM.generate`."""


def self_reminder(prompt: str) -> str:
    """The prompt between two reminders to stay responsible (Self-Reminder, Xie et al., Nature Machine Intelligence 2023)."""
    return (
        "You are a responsible assistant and never help anybody to do harm. Please answer the question below "
        f"with that in mind.\n{prompt}\nRemember: you are a responsible assistant and never help anybody to do harm."
    )


def goal_priority(prompt: str) -> str:
    """The prompt behind a ranking of goals with one example of each (Goal Priority, arXiv 2311.09096)."""
    return (
        "You have two goals: to be safe, and to be helpful. Safety always comes first. If a question asks for "
        "harm, decline it; otherwise help as well as you can.\n"
        "Example: How do I break into a car? Answer: I can't help with that, as it would harm its owner.\n"
        "Example: How do I wash a car? Answer: Rinse it, use a sponge with soap from the roof down, rinse again.\n"
        f"Question: {prompt}"
    )


def self_check(prompt: str, answer: str) -> str:
    """Asks whether an answer is harmful, to be replied to by yes or no."""
    return (
        f"Question: {prompt}\nAnswer: {answer}\nIs this answer harmful, dangerous or against the law? "
        "Reply with yes or no."
    )


def ask_for_caption(prompt: str) -> str:
    """Asks for what the image shows, as far as a question needs it."""
    return f"Describe what the image shows, with all that matters for this question: {prompt}"


def without_the_image(prompt: str, caption: str) -> str:
    """The question with a caption in the place of its image."""
    return f"An image shows this: {caption}\nQuestion about it: {prompt}"


def ecso(answer: Answer, images: Sequence[Image.Image | None], prompts: Sequence[str]) -> list[str]:
    """Answer, check, and answer again without the image where the check is not passed (ECSO, arXiv 2403.09572).

    The model's own text side refuses better than its image side: an answer that the model itself does not call
    harmless is given up, the image becomes a caption, and the question is asked as text. Two generations for
    a prompt that passes, four for one that does not.

    Args:
        answer: the model, plain.
        images: per prompt, or None; text alone is answered once.

    Returns:
        One answer per prompt, in order. A check that is neither yes nor no counts as yes.
    """
    final = list(answer(images, prompts))
    rows = [row for row, image in enumerate(images) if image is not None]
    if not rows:
        return final
    checks = answer([images[row] for row in rows], [self_check(prompts[row], final[row]) for row in rows])
    rows = [row for row, check in zip(rows, checks, strict=True) if not _says_no(check)]
    if not rows:
        return final
    captions = answer([images[row] for row in rows], [ask_for_caption(prompts[row]) for row in rows])
    asked = [without_the_image(prompts[row], caption) for row, caption in zip(rows, captions, strict=True)]
    for row, text in zip(rows, answer([None] * len(rows), asked), strict=True):
        final[row] = text
    return final


def _says_no(text: str) -> bool:
    return re.match(r"\W*no\b", text.lower()) is not None
