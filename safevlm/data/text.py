"""Extracts the text that belongs to an image from the forms in which data sets store it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from safevlm.data.placeholders import IN_WORDS

FIELDS = ("caption", "text", "captions", "conversations", "messages", "TEXT", "CAPTION")
"""Where the words of a row are looked for, in this order."""

MAX_TEXT = 100_000
"""Characters that are kept of a sample's text."""

MAX_DEPTH = 8
"""Lists within lists that are looked into for words; real data has two."""

_MORE = ("prompt", "question", "instruction", "query", "conversation", "contents", "input")
"""Where the words of a JSON row are looked for behind `FIELDS`."""

_ROLES = ("from", "role", "author", "speaker")
ASKING = ("human", "user")
ANSWERING = ("gpt", "assistant", "bot", "model", "chatgpt", "gpt4", "chatbot", "ai")
SYSTEM = ("system", "developer")
"""Names of speakers in conversations, in lower case."""
_NOT_ASKING = frozenset((*ANSWERING, *SYSTEM, "tool", "function", "observation"))
"""Speakers whose words are not part of a row's text."""
_WORDS = ("value", "content", "parts", "text", "caption")
_ASKED = (*ASKING, "question", "query", "instruction", "prompt", "input")
"""Keys of a turn without a role."""


def text_of(row: Mapping[str, Any]) -> str:
    """The text of a JSON row: its first field of `FIELDS` and then `_MORE` that is there and not empty."""
    return next((text for field in (*FIELDS, *_MORE) if (text := plain(row.get(field)))), "")


def plain(value: Any, *, depth: int = MAX_DEPTH) -> str:
    """A caption, a list of captions, or a conversation as one text; empty for anything else.

    Of a conversation all turns are kept but those of the assistant, the system and tools, without `<image>`
    placeholders. What lies more than `depth` lists deep has no words.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping):
        return clean(_turn(value, depth))
    if isinstance(value, Sequence) and depth:
        lines = [plain(part, depth=depth - 1) for part in value]
        return clean("\n".join(line for line in lines if line))
    return ""


def has_words(value: Any, *, depth: int = MAX_DEPTH) -> bool:
    """Whether a conversation has texts of more than one word in it that `plain` may not find."""
    if isinstance(value, str):
        return bool(re.search(r"\w\s+\w", IN_WORDS.sub("", value)))
    if isinstance(value, Mapping):
        return depth > 0 and not _answers(value) and has_words(list(value.values()), depth=depth)
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        return False
    return depth > 0 and any(has_words(one, depth=depth - 1) for one in value)


def unread_words(row: Mapping[str, Any], fields: Sequence[str] = (*FIELDS, *_MORE)) -> str:
    """Why a row has no text although one of these fields has words; empty where it has text, or no words."""
    if any(plain(row.get(field)) for field in fields):
        return ""
    found = (field for field in fields if has_words(row.get(field), depth=4 * MAX_DEPTH))
    return next((f"the words in {field!r} are written in a way that is not known" for field in found), "")


def clean(text: str) -> str:
    """Text that every file takes: no lone surrogates, at most `MAX_TEXT` characters."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(data: bytes) -> str:
    """The text of a JSON object, empty for another value.

    Raises:
        ValueError: if it is not JSON, or has words in an unknown form.
    """
    try:
        row = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"nested too deeply: {error}") from error
    if not isinstance(row, Mapping):
        return ""
    if unread := unread_words(row):
        raise ValueError(unread)
    return text_of(row)


def _answers(turn: Mapping[str, Any]) -> bool:
    role = next((turn[key] for key in _ROLES if turn.get(key) is not None), None)
    role = role.get("role") if isinstance(role, Mapping) else role
    return isinstance(role, str) and role.strip().lower() in _NOT_ASKING


def _turn(turn: Mapping[str, Any], depth: int) -> str:
    """One turn of LLaVA (`from`, `value`), of chat messages (`role`, `content`), or a part of one (`text`)."""
    if _answers(turn) or not depth:
        return ""
    keys = [key for key in _WORDS if turn.get(key)] or [key for key in _ASKED if turn.get(key)]
    lines = [plain(turn[key], depth=depth - 1) for key in keys]
    text = "\n".join(line for line in lines if line)
    return (IN_WORDS.sub("", text) if "<" in text else text).strip()
