"""Conversations as users give them: checked part by part, so that nothing in them goes unread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safevlm.printable import shortened

ROLES = ("system", "user", "assistant")


def make_chat(prompt: str | Sequence[Mapping[str, Any]], images: int) -> list[dict[str, Any]]:
    """A chat with one part per image: a plain prompt gets its images in front.

    Args:
        prompt: text, or messages `{"role": ..., "content": ...}` whose content is text or a list of
            `{"type": "text", "text": ...}` and `{"type": "image"}` parts.
        images: how many images came with it.

    Raises:
        TypeError: a prompt, message, content or part of another type.
        ValueError: another role, key or type of part, no user message, or image parts that are not as many
            as the images.
    """
    if isinstance(prompt, str):
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": prompt}]
        return [{"role": "user", "content": content}]
    if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Sequence):
        raise TypeError(f"a prompt is a {type(prompt).__name__}; give a text, or a list of messages")
    chat = [_message(number, message) for number, message in enumerate(prompt)]
    if not any(message["role"] == "user" for message in chat):
        raise ValueError("the chat has no user message; the answer needs one to reply to")
    parts = image_parts(chat)
    if parts != images:
        raise ValueError(
            f'the chat has {parts} {{"type": "image"}} parts and {images} images came with it; '
            "give one image per part"
        )
    return chat


def image_parts(chat: Sequence[Mapping[str, Any]]) -> int:
    """How many images a checked chat has."""
    return sum(part["type"] == "image" for message in chat for part in message["content"])


def _message(number: int, message: Any) -> dict[str, Any]:
    where = f"message {number} of the chat"
    if not isinstance(message, Mapping):
        raise TypeError(f'{where} is a {type(message).__name__}; give {{"role": ..., "content": ...}}')
    _check_keys(message, ("role", "content"), where)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{where} has the role {_named(role)}; known are {', '.join(ROLES)}")
    if isinstance(content, str):
        return {"role": role, "content": [{"type": "text", "text": content}]}
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise TypeError(
            f"{where} has content of type {type(content).__name__}; give a text, or a list of parts"
        )
    return {"role": role, "content": _joined([_part(n, part, where) for n, part in enumerate(content)])}


def _joined(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adjacent text parts as one: templates may write a separator after each part."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        if joined and part["type"] == "text" and joined[-1]["type"] == "text":
            joined[-1]["text"] += part["text"]
        else:
            joined.append(dict(part))
    return joined


def _part(number: int, part: Any, message: str) -> dict[str, Any]:
    where = f"part {number} of {message}"
    if not isinstance(part, Mapping):
        raise TypeError(
            f'{where} is a {type(part).__name__}; give {{"type": "text", "text": ...}} or {{"type": "image"}}'
        )
    kind = part.get("type")
    if kind == "image":
        _check_keys(part, ("type",), where, hint="; an image itself is given in `images`")
        return {"type": "image"}
    if kind != "text":
        raise ValueError(
            f'{where} has the type {_named(kind)}, which is not read; give {{"type": "text", "text": ...}}, '
            'or {"type": "image"} with the image in `images`'
        )
    _check_keys(part, ("type", "text"), where)
    if not isinstance(part.get("text"), str):
        raise TypeError(f"{where} has text of type {type(part.get('text')).__name__}; give a str")
    return {"type": "text", "text": part["text"]}


def _check_keys(given: Mapping[Any, Any], known: Sequence[str], where: str, *, hint: str = "") -> None:
    """Refuse keys that nothing reads; datasets write None for keys that a row does not have."""
    unread = [key for key, value in given.items() if key not in known and value is not None]
    if unread:
        names = ", ".join(_named(key) for key in unread)
        raise ValueError(f"{where} has {names}, which is not read; known are {', '.join(known)}{hint}")


def _named(value: object) -> str:
    """A value for a message: text as a literal, of anything else only its type."""
    return shortened(value, 80, quoted=True) if isinstance(value, str) else f"a {type(value).__name__}"


def without_images(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A checked chat without its image parts; a message of images alone has an empty text."""
    changed = []
    for message in chat:
        texts = [part for part in message["content"] if part["type"] == "text"]
        changed.append({**message, "content": _joined(texts or [{"type": "text", "text": ""}])})
    return changed


def last_user_text(chat: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last user message: the request that the answer is to."""
    for message in reversed(chat):
        if message["role"] == "user":
            return "\n".join(part["text"] for part in message["content"] if part["type"] == "text")
    return ""


def with_hint(chat: Sequence[Mapping[str, Any]], hint: str) -> list[dict[str, Any]]:
    """The chat with `hint` and a space before the text of its last user message."""
    changed = [dict(message) for message in chat]
    for message in reversed(changed):
        if message["role"] == "user":
            parts = [dict(part) for part in message["content"]]
            first = next((part for part in parts if part["type"] == "text"), None)
            if first is None:
                parts.append({"type": "text", "text": hint})
            else:
                first["text"] = f"{hint} {first['text']}"
            message["content"] = parts
            return changed
    raise ValueError("the chat has no user message to put a hint before")
