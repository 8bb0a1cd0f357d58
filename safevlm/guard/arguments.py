"""The images and prompts of a call -> each prompt with its own images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from safevlm.backbone import take_images
from safevlm.opening import KINDS, ImageLike, is_image
from safevlm.types import Chat

Entry: TypeAlias = "ImageLike | Sequence[ImageLike] | None"
"""A prompt's images: none, one, or several."""

Images: TypeAlias = "Entry | Sequence[Entry]"
"""Per prompt an entry; the entry itself for a single prompt; None when no prompt has any."""

Prompts: TypeAlias = "str | Chat | Sequence[str | Chat]"
"""Texts or chats; a single one stands for a list of one."""


def prompt_list(prompts: Prompts) -> tuple[Sequence[str | Chat], bool]:
    """The prompts, and whether it was a single one.

    Raises:
        ValueError: no prompts.
    """
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
        return [prompts], True  # what is no prompt is refused with its number
    found: Any = prompts if isinstance(prompts, Sequence) else list(prompts)
    if len(found) == 0:
        raise ValueError("generate got no prompts; give at least one")
    return ([found], True) if isinstance(found[0], Mapping) else (found, False)


def with_images(images: Images, prompts: Prompts) -> list[tuple[str | Chat, list[ImageLike]]]:
    """Each prompt with its images, those that stand in a chat taken out of it.

    Raises:
        ValueError: no prompts, counts that do not fit, or images both in a chat and beside it.
        TypeError: images that are neither images nor lists of them.
    """
    asked, single = prompt_list(prompts)
    entries: Sequence[Any] = [None] * len(asked)
    if single or is_image(images):
        entries = [images]
    elif images is not None:
        entries = _listed(images)
    if len(entries) != len(asked):
        raise ValueError(
            f"generate got {len(entries)} image entries and {len(asked)} prompts; give one entry per prompt (None where "
            "there is no image, a list where a prompt has several: [[first, second]])"
        )
    return [_taken(prompt, _entry(entry)) for prompt, entry in zip(asked, entries, strict=True)]


def _entry(entry: Entry) -> list[ImageLike]:
    if entry is None:
        return []
    return [entry] if is_image(entry) else _listed(entry)


def _listed(images: Any) -> list[Any]:
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise TypeError(
            f"images has a {type(images).__name__}; give an image ({KINDS}), a list of them, or None"
        )
    return list(images)


def _taken(prompt: str | Chat, beside: list[ImageLike]) -> tuple[str | Chat, list[ImageLike]]:
    if isinstance(prompt, (str, bytes, Mapping)) or not isinstance(prompt, Sequence):
        return prompt, beside
    chat, inline = take_images(prompt)
    if inline and beside:
        raise ValueError(
            f"the chat has {len(inline)} images in its parts and {len(beside)} came beside it in `images`; give them in "
            "one place"
        )
    return chat, inline or beside
