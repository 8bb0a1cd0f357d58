"""Preference files in the Hugging Face form: `prompt, chosen, rejected, images`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safevlm.backbone import make_chat
from safevlm.errors import DataError
from safevlm.labelled.formats import raw_rows
from safevlm.labelled.image_keys import image_keys
from safevlm.labelled.images import read_value
from safevlm.labelled.raw import BadRowError, RawRow, is_empty

from .samples import Prompt, Sample

COLUMNS = ("prompt", "chosen", "rejected", "images", "image")
SHOWN = 20
"""Bad rows that an error message lists."""


def read_preferences(path: str | Path) -> list[Sample]:
    """Read a Parquet, JSONL or JSON file, or a folder of Parquet files, of preference pairs.

    `prompt` is text or messages; `chosen` and `rejected` are text, or messages whose last one is the assistant's; `images`
    is a list (or `image` one) of bytes, `{bytes, path}`, base64 or paths inside the table's folder, or empty.

    Raises:
        DataError: no such table, no row, or bad rows (file, row, column and reason of each).
        MissingExtraError: the table is Parquet, and pyarrow is not installed.
    """
    table = Path(path)
    folder = (table if table.is_dir() else table.parent).resolve()
    samples, bad = list[Sample](), list[str]()
    for row in raw_rows(table, COLUMNS):
        try:
            samples.append(_sample(row, folder))
        except BadRowError as error:
            bad.append(f"{row.file}: row {row.number}, column {error.column}: {error.reason}")
    pictures = [(sample, image) for sample in samples for image in sample.images]
    checked = image_keys([image for _, image in pictures], decoded=True)
    bad += [
        f"{sample.where}, column images: {error}"
        for (sample, _), (_, error) in zip(pictures, checked, strict=True)
        if error
    ]
    if bad:
        listed = "\n  ".join([*bad[:SHOWN], *["..."][: len(bad) > SHOWN]])
        raise DataError(f"{table}: {len(bad)} bad rows; correct or remove them:\n  {listed}")
    if not samples:
        raise DataError(f"{table}: has no rows; a preference file needs at least one pair")
    return samples


def _sample(row: RawRow, folder: Path) -> Sample:
    if row.error is not None:
        raise row.error
    values = row.values
    given = values.get("images")
    several = given if isinstance(given, list | tuple) else [given]
    encoded = [read_value(one, file=row.file, folder=folder) for one in (*several, values.get("image"))]
    images = tuple(one for one in encoded if one is not None)
    prompt = _prompt(values.get("prompt"), len(images))
    chosen, rejected = (_answer(values.get(name), name) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise BadRowError("rejected", "is the chosen answer; a pair has two different ones")
    return Sample(images, prompt, chosen, rejected, where=f"{row.file}: row {row.number}")


def _prompt(value: Any, images: int) -> Prompt:
    if is_empty(value):
        raise BadRowError("prompt", "is empty; write what is asked")
    prompt: Prompt = value.replace("<image>", "").strip() if isinstance(value, str) else _messages(value)
    try:
        make_chat(prompt, images)
    except (TypeError, ValueError) as error:
        raise BadRowError("prompt", str(error)) from error
    return prompt


def _messages(value: Any) -> Any:
    """Messages without the empty keys that a column of structs gives every part."""
    if isinstance(value, dict):
        return {name: _messages(part) for name, part in value.items() if not is_empty(part)}
    return [_messages(part) for part in value] if isinstance(value, list | tuple) else value


def _answer(value: Any, column: str) -> str:
    """An answer as text, or as the last of messages."""
    if isinstance(value, list | tuple) and value:
        last = value[-1]
        if not isinstance(last, dict) or last.get("role") != "assistant":
            raise BadRowError(
                column, "has messages whose last one is not the assistant's; write its answer there"
            )
        value = _joined(last.get("content"))
    if not isinstance(value, str) or not value.strip():
        raise BadRowError(column, "is no text; write the answer")
    return value.strip()


def _joined(content: Any) -> Any:
    """The text of a message's content, which may be a list of parts."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
