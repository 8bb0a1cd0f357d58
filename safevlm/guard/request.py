"""One prompt of a batch on its way through the guard, with its images read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from safevlm.backbone import last_user_text, make_chat
from safevlm.policy import Decision
from safevlm.scorer import open_image
from safevlm.types import Action, Chat, ImageLike, RiskAssessment

Images: TypeAlias = "Sequence[ImageLike | Sequence[ImageLike] | None] | None"
"""Per prompt: no image, one, or several; None when no prompt has any."""


@dataclass
class Request:
    """What is asked, and what was decided.

    Args:
        chat: the conversation, one image part per image.
        images: its images, as rows of the batch's tower pass.
        unreadable: why an image could not be read; empty where all could.
        assessment: of the riskiest image; None for text alone.
        decision: what the policy does.
    """

    chat: list[dict[str, Any]]
    images: list[int] = field(default_factory=list)
    unreadable: str = ""
    assessment: RiskAssessment | None = None
    decision: Decision = field(default_factory=lambda: Decision(Action.ALLOW))


def open_requests(images: Images, prompts: Sequence[str | Chat]) -> tuple[list[Request], list[Image.Image]]:
    """Check the counts and read the images.

    Returns:
        One request per prompt, and the RGB images that could be read, in order.

    Raises:
        ValueError: no prompts, counts that do not fit, or a prompt with neither text nor image.
    """
    if len(prompts) == 0:
        raise ValueError("generate got no prompts; give at least one")
    if images is not None and len(images) != len(prompts):
        raise ValueError(
            f"generate got {len(images)} image entries and {len(prompts)} prompts; "
            "give one entry per prompt (None where there is no image)"
        )
    requests, opened = [], list[Image.Image]()
    for number, prompt in enumerate(prompts):
        given = _image_list(None if images is None else images[number])
        request = Request(make_chat(prompt, len(given)))
        if not given and not last_user_text(request.chat).strip():
            raise ValueError(f"prompt {number} is empty and has no image; write a prompt or give an image")
        for source in given:
            image = open_image(source)
            if isinstance(image, str):
                request.unreadable = image
            else:
                request.images.append(len(opened))
                opened.append(image)
        requests.append(request)
    return requests, opened


def _image_list(entry: ImageLike | Sequence[ImageLike] | None) -> list[ImageLike]:
    if entry is None:
        return []
    return [entry] if isinstance(entry, (Image.Image, str, bytes, Path)) else list(entry)
