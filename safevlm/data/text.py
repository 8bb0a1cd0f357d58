"""The words that belong to a picture, out of the shapes that data sets give them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = ("caption", "text", "captions", "conversations", "messages", "TEXT", "CAPTION")
"""Where the words of a row are looked for, in this order."""

MAX_TEXT = 100_000
"""Characters that are kept of a sample's text."""

MAX_DEPTH = 8
"""Lists within lists that are looked into for words; real data has two."""

_PLACEHOLDER = re.compile(r"[ \t]*<image>[ \t]*\n?")
_ASKING = ("human", "user")


def text_of(row: Mapping[str, Any]) -> str:
    """The text of a row: its first field of `FIELDS` that is there and not empty."""
    return next((text for field in FIELDS if (text := plain(row.get(field)))), "")


def plain(value: Any, *, depth: int = MAX_DEPTH) -> str:
    """A caption, a list of captions, or a conversation as one text; empty for anything else.

    Of a conversation the turns of the person who asks are kept, without `<image>` placeholders.
    What lies more than `depth` lists deep has no words.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        return clean(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Sequence) and depth:
        lines = [_turn(part) if isinstance(part, Mapping) else plain(part, depth=depth - 1) for part in value]
        return clean("\n".join(line for line in lines if line))
    return ""


def clean(text: str) -> str:
    """Text that every file takes: no lone surrogates, at most `MAX_TEXT` characters."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(data: bytes) -> str:
    """The text of a JSON object, empty for another value; raises ValueError where it is no JSON."""
    try:
        row = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"nested too deeply: {error}") from error
    return text_of(row) if isinstance(row, Mapping) else ""


def _turn(turn: Mapping[str, Any]) -> str:
    """One turn of LLaVA (`from`, `value`) or of chat messages (`role`, `content`)."""
    if turn.get("from", turn.get("role")) not in _ASKING:
        return ""
    content = turn.get("value", turn.get("content"))
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(plain(part) for part in parts if isinstance(part, str))
    return _PLACEHOLDER.sub("", plain(content)).strip()
