"""Images that stand in a chat itself, as processors and OpenAI's clients write them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

_URL = re.compile(r"\s*(?:data|https?):", re.IGNORECASE)

IMAGE_KEYS = ("image", "url", "path", "base64")
"""Keys of a part of type "image" that hold it, as transformers' processors read them; one is given."""


def take_images(chat: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Take the images out of a chat.

    Read are parts `{"type": "image", "image": ...}` of anything that is an image, `"url"` of a `data:` or http(s) URL,
    `"path"` of a file, `"base64"` of one's bytes, and `{"type": "image_url", "image_url": {"url": ...}}`, whose `detail` has no effect. Whatever else
    stands in the chat stays as it is, for `make_chat` to check.

    Returns:
        The chat with `{"type": "image"}` in their places, and the images in order.

    Raises:
        TypeError, ValueError: a part with several images, or with a URL or path that is none.
    """
    found: list[Any] = []
    return [_message(message, found) for message in chat], found


def _message(message: Any, found: list[Any]) -> Any:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, (str, bytes, Mapping)) or not isinstance(content, Sequence):
        return message
    return {**message, "content": [_part(part, found) for part in content]}


def _part(part: Any, found: list[Any]) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image_url":
        return _openai_part(part, found)
    keys = [key for key in IMAGE_KEYS if part.get(key) is not None] if kind == "image" else []
    if not keys:
        return part
    if len(keys) > 1:
        raise ValueError(f"an image part of the chat has {' and '.join(keys)}; give the image once")
    image = part[keys[0]]
    if keys[0] == "url":
        _check_url(image)
    if keys[0] == "path" and (not isinstance(image, (str, os.PathLike)) or _is_url(image)):
        raise ValueError(
            '"path" of an image part is no path of a file; give a URL as "url", other images as "image"'
        )
    if keys[0] == "base64":
        image = f"data:image/*;base64,{image}"
    found.append(image)
    return {key: value for key, value in part.items() if key != keys[0]}


def _openai_part(part: Mapping[str, Any], found: list[Any]) -> Any:
    given = part.get("image_url")
    if isinstance(given, Mapping):
        if unread := [str(key) for key in given if key not in ("url", "detail")]:
            raise ValueError(
                f'"image_url" of the chat has {", ".join(unread)}, which is not read; give its "url"'
            )
        given = given.get("url")
    _check_url(given)
    found.append(given)
    rest = {key: value for key, value in part.items() if key != "image_url"}
    return {**rest, "type": "image"}


def _check_url(value: object) -> None:
    """Raise ValueError for what is no URL: who may write a chat's URLs need not be one who may name this machine's files."""
    if not _is_url(value):
        raise ValueError(
            'a URL of the chat is no data: or http(s) URL; give a file as {"type": "image", "path": ...}'
        )


def _is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.match(value) is not None
