"""The columns of a row as it was written -> the documented columns.

A row may have labels and text in the documented columns, in the authors' (`safe_type`, `safe_level`) and
in a conversation. What only one of them has is taken; where two differ, the row is bad.
"""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from safevlm.data.placeholders import count_placeholders, has_other_media, without_placeholders
from safevlm.taxonomy import Taxonomy

from .images import first_of, holds_image, names_image, single
from .layout import Layout
from .raw import AUTHORS, LABELS, TURNS, BadRowError, RawRow, is_empty, whole_number
from .turns import Exchange, read_exchange

# The order of the authors' numbers (arXiv 2405.13581, released data): `safe_type` and `safe_level`.
AUTHORS_TYPES = ("politics", "illegal", "insults", "fairness", "privacy", "misleading", "clean")
AUTHORS_LEVELS = 4

COLUMNS = ("image", "prompt", "response", "read_text", *LABELS, "labels_of", "split")
"""The documented table."""
IMAGE_COLUMNS = (
    "image_path", "image_paths", "image_file", "image_name", "image_url", "image_bytes", "img", "img_path",
    "picture", "photo",
    "file_name", "filename", "filepath", "file_path", "path", "file",
)  # fmt: skip
"""Where an image is looked for in a row without `image` and `images`."""
KNOWN = (*COLUMNS, "images", *AUTHORS, *TURNS)

SIMILAR = {
    "risk_level": (
        "level",
        "label",
        "labels",
        "severity",
        "rating",
        "risk",
        "safety",
        "safe",
        "unsafe",
        "harmful",
    ),
    "risk_category": ("category", "categories", "class", "type", "label", "labels", "topic"),
    "prompt": ("question", "instruction", "query", "texts", "input"),
    "response": ("answer", "output", "completion", "chosen", "target"),
    "split": ("subset", "partition", "fold"),
}
"""Documented column -> last words of similar column names, which are named in the log and not read."""

_CLOSE = 0.86
"""Fraction of letters from which on a name is a misspelling (`difflib`'s ratio): risk_lvl has 0.875."""


def plain_name(name: str) -> str:
    """A name without case, spaces and punctuation: `Risk-Level` as risklevel."""
    return re.sub(r"[\W_]+", "", name).casefold()


_SAYS_WHICH = re.compile(
    r"(image|img|photo|picture)s?[ _-]?(id|name|key|hash|sha256|link|url|uri|src|source|data|b64|base64)s?",
    re.IGNORECASE,
)
_VERDICTS = ("safe", "unsafe", "harmful", "harmless", "risky", "toxic", "nsfw", "benign")
"""Values that are judgements in any taxonomy; so is true or false in a column named like a label."""

_PLAIN = {plain_name(name): name for name in KNOWN}


def is_wanted(name: str) -> bool:
    """Whether `table_row` looks at a column of this name."""
    return name in KNOWN or name in IMAGE_COLUMNS or _meant(name) is not None or bool(_similar_to(name))


def table_row(row: RawRow, taxonomy: Taxonomy, layout: Layout) -> RawRow:
    """The row in the documented columns, or with the error that makes it a bad one."""
    values = layout.documented(row.values)
    try:
        _refuse_misspellings(values)
        exchanges = {
            name: read_exchange(values[name], name) for name in TURNS if not is_empty(values.get(name))
        }
        found = {column: values.get(column) for column in ("split", "labels_of", "read_text")}
        for column in ("prompt", "response"):
            found[column] = _text(column, values.get(column), exchanges)
        found["image"] = _image(values, exchanges, first=layout.first_image)
        found |= _labels(values, taxonomy)
    except BadRowError as error:
        return replace(row, values={}, error=error)
    extra = layout.kept({**row.values, "risk_category": found["risk_category"]})
    left_out = tuple(dict.fromkeys(what for exchange in exchanges.values() for what in exchange.left_out))
    unread = _unread(values, found)
    if "risk_category" in layout.extra:
        found["risk_category"] = None
    return replace(row, values=found, left_out=left_out, unread=unread, extra=extra)


def checked_names(row: RawRow, layout: Layout) -> RawRow:
    """The row's values as they are, with an error where a column's name is another spelling of a known one."""
    try:
        _refuse_misspellings(row.values)
    except BadRowError as error:
        return replace(row, error=error)
    return replace(row, extra=layout.kept(row.values))


def _refuse_misspellings(values: dict[str, Any]) -> None:
    """A value under another spelling of a column that is empty or differs makes the row bad."""
    for name, value in values.items():
        meant = _meant(name)
        if meant is None or is_empty(value) or value == values.get(meant):
            continue
        if is_empty(values.get(meant)) or plain_name(name) == plain_name(meant):
            known = ", ".join(KNOWN)
            raise BadRowError(name, f"is not read; rename it {meant!r} if it is that (known are {known})")


@lru_cache(1024)
def _meant(name: str) -> str | None:
    """The known column that a name is another spelling of, if any."""
    plain = plain_name(name)
    close = get_close_matches(plain, list(_PLAIN), n=1, cutoff=_CLOSE)
    if name in KNOWN or name in IMAGE_COLUMNS or not close:
        return None
    meant = _PLAIN[close[0]]
    return None if plain != close[0] and meant in (*TURNS, "images") else meant


@lru_cache(1024)
def _similar_to(name: str) -> tuple[str, ...]:
    last = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold())[-1]
    return () if name in KNOWN else tuple(column for column, words in SIMILAR.items() if last in words)


def _unread(values: dict[str, Any], found: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (column, name)
        for name in values
        if not is_empty(values[name])
        for column in _similar_to(name)
        if is_empty(found[column])
    )


def _text(column: str, own: Any, exchanges: dict[str, Exchange]) -> Any:
    """The text of the documented column and of the conversations, which say the same where both are there."""
    texts = {} if is_empty(own) else {column: own}
    if isinstance(own, str):
        if has_other_media(own):
            raise BadRowError(
                column, "shows a video, sound, or an image written into it; put the image in `image`"
            )
        if column == "response" and count_placeholders(own):
            raise BadRowError(column, "has an image placeholder in an answer")
        texts[column] = without_placeholders(own)
    texts |= {name: text for name, turns in exchanges.items() if (text := getattr(turns, column))}
    given = [(name, text) for name, text in texts.items() if not is_empty(text)]
    for name, text in given[1:]:
        if not isinstance(given[0][1], str) or text.strip() != given[0][1].strip():
            raise BadRowError(column, f"differs between {given[0][0]!r} and {name!r}; keep one of them")
    return given[0][1] if given else None


def _image(values: dict[str, Any], exchanges: dict[str, Exchange], *, first: bool) -> Any:
    """The one image that the row names, or the first one; placeholders stand for it and are no more than it."""
    named = [values[name] for name in ("image", "images") if not is_empty(values.get(name))]
    named += [image for turns in exchanges.values() for image in turns.images]
    extra = [name for name in values if re.fullmatch(r"(?i)(image|img)[ _-]?[0-9]+", name)]
    named += [values[name] for name in extra if not is_empty(values[name])]
    if not named:
        named = [values[name] for name in IMAGE_COLUMNS if not is_empty(values.get(name))]
        named = [value for value in named if names_image(value)] or named[:1]
    if first:
        named = [first_of(named)]
    images: list[Any] = []
    for value in map(single, named):
        if value not in images and not is_empty(value):
            images.append(value)
    if len(images) > 1:
        raise BadRowError("image", f"names {len(images)} images; a row has one, so write a row for each")
    shown = [turns.placeholders for turns in exchanges.values()]
    if isinstance(values.get("prompt"), str):
        shown.append(count_placeholders(values["prompt"]))
    if max(shown, default=0) > len(images) and not first:
        raise BadRowError(
            "image", f"names {len(images)} images, the prompt shows {max(shown)}; they must agree"
        )
    if not images:
        for name, value in values.items():
            if name in (*KNOWN, *IMAGE_COLUMNS) or is_empty(value):
                continue
            if holds_image(value) or _SAYS_WHICH.fullmatch(name):
                raise BadRowError(name, "names an image, and `image` is empty; rename the column `image`")
    return images[0] if images else None


def _labels(values: dict[str, Any], taxonomy: Taxonomy) -> dict[str, Any]:
    kind = _authors_number(values, "safe_type", len(AUTHORS_TYPES))
    level = _authors_number(values, "safe_level", AUTHORS_LEVELS)
    if level is not None and len(taxonomy.levels) != AUTHORS_LEVELS:
        raise BadRowError(
            "safe_level",
            f"is one of {AUTHORS_LEVELS} levels, taxonomy {taxonomy.name!r} has {len(taxonomy.levels)}",
        )
    theirs = {
        "risk_level": None if level is None else taxonomy.levels[level],
        "risk_category": None if kind is None else AUTHORS_TYPES[kind],
    }
    found: dict[str, Any] = {}
    for column, names in (("risk_level", taxonomy.levels), ("risk_category", taxonomy.category_names)):
        own, other = values.get(column), theirs[column]
        if not is_empty(own) and other is not None and (label_name(own, names) or own) != other:
            authors = "safe_level" if column == "risk_level" else "safe_type"
            raise BadRowError(column, f"is {own!r:.60}, {authors} says {other!r}; keep one of them")
        found[column] = other if is_empty(own) else own
        if found[column] is None:
            _refuse_label_elsewhere(values, column, names)
    return found


def _refuse_label_elsewhere(values: dict[str, Any], column: str, names: tuple[str, ...]) -> None:
    known = (*names, *_VERDICTS) if column == "risk_level" else names
    for name, value in values.items():
        if isinstance(value, dict) and not is_empty(value.get(column)):
            raise BadRowError(f"{name}.{column}", f"is not read; write it in a column {column} of its own")
        parts = value if isinstance(value, list) else [value]
        judged = any(label_name(part, known) or (isinstance(part, bool) and names != known) for part in parts)
        if column in _similar_to(name) and judged:
            raise BadRowError(
                name, f"is {value!r:.60}, a {column} by its value, and is not read; rename it {column}"
            )


def label_name(value: Any, names: tuple[str, ...]) -> str | None:
    """The taxonomy's name that a text is, whatever its case, spaces and hyphens; None for another value."""
    if value in names:
        return str(value)
    found = [name for name in names if isinstance(value, str) and plain_name(name) == plain_name(value)]
    return found[0] if len(found) == 1 else None


def _authors_number(values: dict[str, Any], column: str, count: int) -> int | None:
    if is_empty(values.get(column)):
        return None
    number = whole_number(values[column])
    if number is None or not 0 <= number < count:
        raise BadRowError(column, f"is {values[column]!r:.60}, a whole number in 0..{count - 1} is needed")
    return number
