"""One JSON object per line that names its pictures, with a caption or messages."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any

from safevlm.data import storage
from safevlm.data.json_stream import MAX_ROW
from safevlm.data.rows import Row, RowSource, row_of

PICTURES = ("image", "images", "file_name")
"""Where a row names its pictures; if nowhere, in the parts of its `messages`."""


class JsonlSource(RowSource):
    """`{"image": name or names, "id", "text" or "caption" or "messages"}` on every line.

    Messages are OpenAI's (`image_url`) or the chat templates' (`{"type": "image", "image": ...}`).
    A line that is no JSON is one item with an error.
    """

    kind = "jsonl"

    def rows(self, start: int, first: int) -> Iterator[tuple[Row, int]]:
        """See `RowSource.rows`; a place is a byte."""
        with storage.open_binary(self.url) as file:
            if start:
                file.seek(start)
            number = first
            while line := file.readline(MAX_ROW):
                start += len(line)
                long = False
                while not line.endswith(b"\n") and (rest := file.readline(MAX_ROW)):
                    start, long, line = start + len(rest), True, rest
                if long:
                    yield _broken(f"{self.name}:{number}", f"has more than {MAX_ROW:,} bytes"), start
                elif line.strip():
                    yield _row(line, f"{self.name}:{number}"), start
                else:
                    continue
                number += 1


def _row(line: bytes, otherwise: str) -> Row:
    try:
        value = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return _broken(otherwise, f"is no JSON ({error})")
    row = row_of(value, otherwise, PICTURES)
    if row.images or row.error:
        return row
    return Row(row.id, tuple(_in_messages(value.get("messages"))), row.text)


def _broken(id: str, what: str) -> Row:
    return Row(id, error=f"{id}: the line {what}; correct it")


def _in_messages(messages: Any) -> Iterator[str]:
    """Pictures in the parts of a conversation."""
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, Mapping):
                found = part.get("image_url", part.get("image"))
                name = found.get("url") if isinstance(found, Mapping) else found
                if isinstance(name, str):
                    yield name
