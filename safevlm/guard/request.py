"""One prompt of a batch on its way through the guard, with its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from safevlm.backbone import last_user_text, make_chat, with_hint
from safevlm.policy import Decision
from safevlm.scorer import open_image
from safevlm.types import Action, Chat, ImageLike, RiskAssessment

Images: TypeAlias = "Sequence[ImageLike | Sequence[ImageLike] | None] | None"
"""Per prompt: no image, one, or several; None when no prompt has any."""


@dataclass
class RequestImage:
    """An image that could be read.

    Args:
        image: RGB.
        row: its place in the batch's tower pass.
        assessment: alone and together with its prompt, the riskier of the two; None until it is assessed.
    """

    image: Image.Image
    row: int
    assessment: RiskAssessment | None = None


@dataclass
class Request:
    """What is asked, and what was decided.

    Args:
        chat: the conversation, one image part per image.
        images: those that could be read.
        unreadable: why an image could not be read; empty where all could.
        assessment: of the riskiest image; None for text alone.
        decision: what the policy does.
    """

    chat: list[dict[str, Any]]
    images: list[RequestImage] = field(default_factory=list)
    unreadable: str = ""
    assessment: RiskAssessment | None = None
    decision: Decision = field(default_factory=lambda: Decision(Action.ALLOW))

    @property
    def text(self) -> str:
        """What the user asked last."""
        return last_user_text(self.chat)

    @property
    def hinted_chat(self) -> list[dict[str, Any]]:
        """The conversation as the LLM gets it, with the policy's hint where there is one."""
        return with_hint(self.chat, self.decision.hint) if self.decision.hint else self.chat


def open_requests(images: Images, prompts: Sequence[str | Chat]) -> list[Request]:
    """Check the counts and read the images; their rows number them through the batch.

    Returns:
        One request per prompt.

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
    requests: list[Request] = []
    rows = 0
    for number, prompt in enumerate(prompts):
        given = _image_list(None if images is None else images[number])
        request = Request(make_chat(prompt, len(given)))
        if not given and not request.text.strip():
            raise ValueError(f"prompt {number} is empty and has no image; write a prompt or give an image")
        for source in given:
            image = open_image(source)
            if isinstance(image, str):
                request.unreadable = image
            else:
                request.images.append(RequestImage(image, rows))
                rows += 1
        requests.append(request)
    return requests


def _image_list(entry: ImageLike | Sequence[ImageLike] | None) -> list[ImageLike]:
    if entry is None:
        return []
    return [entry] if isinstance(entry, (Image.Image, str, bytes, Path)) else list(entry)
