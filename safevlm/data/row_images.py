"""Finds the images that a row of JSON names: in fields, in the parts of messages, or embedded as base64.

Data sets do this in many ways. Known ways are read. Anything else that looks like an image is an error, so that a
row with an image is never taken for one that has only text.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from safevlm.data import placeholders
from safevlm.data.folder import is_image_name
from safevlm.data.inline import is_base64
from safevlm.data.source import TEXT_ONLY

MAX_DEPTH = 32
"""Lists and objects within each other that are looked into."""

WEB_BESIDE = "web addresses beside an image that is read"
MEDIA_BESIDE = "videos or sounds beside an image that is read"
"""Why a field is passed over: it most likely says where the image comes from."""
OTHER_BESIDE = "images that an unknown field names beside an image that is read"
EMPTY_BESIDE = "empty places in lists of images"
UNNAMED = "rows with <image> in their text that name no image"
SHOWN_IN_TEXT = "rows that show an image by Markdown or HTML in their text and name none"
"""Why something else is passed over, or a whole row."""

_FIELD = re.compile(
    r"(image|img|picture|photo)s?\d*(path|file|filename|filepath|url|uri|base64|b64|bytes)?s?\d*"
)
"""Fields whose value, whatever it is, stands for the row's images. Case, `_` and `-` do not count."""

_MAYBE = re.compile(r"image|img|picture|photo")
"""Fields that name an image where their value looks like one (`left_image`), and only there (`image_id`)."""

_FILE = ("filename", "filepath", "file", "path", "url", "jpg", "jpeg", "png", "webp")
"""Fields that name an image where their value looks like one, and no other field names it."""

_INLINE = ("bytes", "base64", "b64", "b64json", "data", "binary", "imagebytes", "imagebase64")
_NAME = (
    *("image", "imagepath", "path", "filepath", "file", "imagefile", "filename", "inputimage", "imageurl"),
    *("url", "uri", "fileuri", "inlinedata", "filedata", "src", "href", "name", "source"),
)
"""Keys of an object that stands for an image, in the order in which they are looked at."""

_SPOKEN = {"from", "value", "role", "content", "type", "text", "parts"}
"""Keys of messages and their parts, of which there are many."""

_SETTINGS = {"detail", "index", "cachecontrol", "minpixels", "maxpixels", "resizedheight", "resizedwidth"}
"""Keys of a part that say how its image is shown."""

_OTHER = re.compile(r"video|audio|speech|pdf|document|^file$|inputfile")
_MEDIA = re.compile(r"(data:|[a-z][a-z0-9+.-]*://)\S+|\S+\.\w{2,5}", re.IGNORECASE)

_WEB = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TAGGED = re.compile(r"<img>\s*([^<>]*?)\s*</img>")
"""An image within a text, as Qwen-VL's data name it."""
_SHOWN = re.compile(r"!\[[^\[\]]{0,1000}\]\([^()\s]|<img\s[^<>]{0,1000}src", re.IGNORECASE)
"""How Markdown and HTML show an image."""
_PACKED = re.compile(r"\s*(\[\s*)?\{\s*\"")
_WRITTEN = re.compile(r"data:image/[\w.+-]+;base64,[\w+/]{1024}")
"""An image within a text; shorter ones are the icons of web pages."""


@dataclass
class RowImages:
    """The images that a row names, and what else was found in it.

    Args:
        names: of its images, each as `ImageRoot.read` takes it.
        errors: what is not understood, without the row's id.
        message_fields: fields in whose messages there are images.
        passed_over: why something in the row, or the row itself, gives no image; once for each.
        signs: of an image, such as a part without a value.
        others: names and base64 of images in unknown fields.
        placeholder: whether a text has `<image>`.
        shown: whether a text shows an image by Markdown or HTML.
    """

    names: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    message_fields: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    signs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    placeholder: bool = False
    shown: bool = False

    def add(self, names: list[str]) -> None:
        """Add the names of one field, but not those that other fields named before."""
        known = {_same(name) for name in self.names}
        self.names += [name for name in names if _same(name) not in known]

    def read(self, value: Any, where: str) -> list[str]:
        """The names in a value that stands for one image or several; what is not understood is an error."""
        if value is None or value in ("", []):
            return []
        if isinstance(value, list):
            self.passed_over += [EMPTY_BESIDE] * sum(one in (None, "") for one in value)
            return [name for one in value for name in self.read(one, where)]
        name = _name(value, MAX_DEPTH)
        if name is None and isinstance(value, dict):
            several = [one for key, one in value.items() if isinstance(one, list) and _plain(key) in _NAME]
            if several and several[0]:
                return self.read(several[0], where)
        if name is None:
            self.errors.append(_unknown(where, value))
        return [] if name is None else [name]


def find_images(row: Mapping[str, Any]) -> RowImages:
    """The images that a row names, field by field in the row's order; an image that several fields name comes once."""
    found = RowImages()
    web, media, rest = [], [], []
    for key, value in row.items():
        plain = _plain(key)
        if _FIELD.fullmatch(plain):
            names = found.read(_inlined(value, plain), f"its field {key!r}")
            away = [name for name in names if "ur" in plain and _WEB.match(name)]
            web += away
            found.add([name for name in names if name not in away])
        elif _OTHER.search(plain) and _is_media(value):
            media.append(f"its field {key!r} is neither text nor an image")
        elif plain not in _FILE and not (_MAYBE.search(plain) and _is_clear(value)):
            _walk(key, value, found)
        else:
            rest.append((key, value))
    for key, value in rest:
        _add_other(key, value, found)
    if found.names:
        found.passed_over += [WEB_BESIDE] * len(web) + [MEDIA_BESIDE] * len(media)
    else:
        found.add(web)
        found.errors += media
    _conclude(found)
    return found


def _conclude(found: RowImages) -> None:
    """Note what the row names in unknown ways, and why it gives no image if it does not."""
    if found.names:
        known = {posixpath.basename(name) for name in found.names}
        others = {other for other in found.others if posixpath.basename(other) not in known}
        found.passed_over += [OTHER_BESIDE] * len(others)
    elif found.errors:
        return
    elif found.signs or found.others:
        sign = found.signs[0] if found.signs else _sign(found.others[0])
        found.errors.append(f"{sign}, but it names no image")
    elif found.placeholder:
        found.passed_over.append(UNNAMED)
    else:
        found.passed_over.append(SHOWN_IN_TEXT if found.shown else TEXT_ONLY)


def _sign(other: str) -> str:
    return f"it has the {'file name' if is_image_name(other) else 'written-out image'} {other[:100]!r}"


def _walk(key: str, value: Any, found: RowImages) -> None:
    messages = _Messages(found)
    messages.look(parse_json_text(value), MAX_DEPTH)
    if messages.names or messages.parts:
        found.message_fields.append(key)
    found.add(messages.names)


def _add_other(key: str, value: Any, found: RowImages) -> None:
    """The image that `file_name`, `left_image` or the like name, unless it is one that was found."""
    before = {posixpath.basename(name) for name in found.names}
    plain = _plain(key)
    if plain in ("filename", "filepath") and not before:
        found.add(found.read(value, f"its field {key!r}"))
    elif plain in _FILE and any(name.startswith("data:") for name in found.names):
        return  # what is written out there has this name
    elif _is_clear(value):
        names = [
            name for name in found.read(value, f"its field {key!r}") if posixpath.basename(name) not in before
        ]
        away = [name for name in names if before and _WEB.match(name)]
        found.passed_over += [WEB_BESIDE] * len(away)
        found.add([name for name in names if name not in away])
    else:
        _walk(key, value, found)


class _Messages:
    """Messages, and whatever else a row has besides fields of images.

    Args:
        found: what the row names; takes errors and signs, but no names.
    """

    def __init__(self, found: RowImages) -> None:
        self.found = found
        self.names: list[str] = []
        self.parts = 0
        """Parts that stand for an image."""

    def look(self, value: Any, depth: int, *, listed: bool = False) -> None:
        """Look through a value; `listed`: it is one of a list, where the parts of messages are."""
        if isinstance(value, str):
            self._text(value)
        elif isinstance(value, list | dict) and not depth:
            self.found.signs.append("it is nested too deeply to be looked into")
        elif isinstance(value, list):
            for one in value:
                self.look(one, depth - 1, listed=True)
        elif isinstance(value, dict) and not self._part(value, listed=listed):
            for key, one in value.items():
                plain = _plain(key)
                if plain in _SPOKEN:
                    self.look(one, depth - 1)
                elif _FIELD.fullmatch(plain) or (_MAYBE.search(plain) and _is_clear(one)):
                    self.names += self.found.read(_inlined(one, plain), f"{key!r} in it")
                elif plain in ("inlinedata", "filedata") and isinstance(one, dict):
                    self._gemini(one)
                else:
                    self.look(one, depth - 1)

    def _part(self, part: Mapping[str, Any], *, listed: bool) -> bool:
        """Whether a part of a message is an image, or what is not read."""
        kind = part.get("type")
        if not isinstance(kind, str):
            return False
        plain = _plain(kind)
        where = f"a part of type {kind!r}"
        if _MAYBE.search(plain) and (listed or any(_plain(key) in _INLINE + _NAME for key in part)):
            self.parts += 1
            value = {key: one for key, one in part.items() if key not in ("type", "text") and one is not None}
            if value and not {_plain(key) for key in value} <= _SETTINGS:
                names = self.found.read(_image_of(value), where)
                self.names += names
            else:
                self.found.signs.append(f"it has {where}")
        elif listed and _OTHER.search(plain):
            self.found.errors.append(f"{where} is neither text nor an image")
        else:
            return False
        return True

    def _gemini(self, value: Mapping[str, Any]) -> None:
        kind = str(value.get("mime_type", value.get("mimeType", "image/")))
        if kind.startswith("image/"):
            self.parts += 1
            self.names += self.found.read(value, "a part with inline data")
        else:
            self.found.errors.append(f"a part of type {kind[:100]!r} is neither text nor an image")

    def _text(self, text: str) -> None:
        if "<" in text:
            self.names += [name for name in _TAGGED.findall(text) if is_image_name(name)]
            self.found.placeholder = self.found.placeholder or bool(placeholders.TAG.search(text))
        if "](" in text or "<" in text:
            self.found.shown = self.found.shown or bool(_SHOWN.search(text))
        if _is_file(text):
            self.found.others.append(text)
        elif "data:image/" in text and (written := _WRITTEN.search(text)):
            self.found.signs.append(f"its text has {written[0][:50]!r}")


def _image_of(part: Mapping[str, Any]) -> Any:
    """What stands for the image, of a part whose type says that it is one."""
    known = [key for key in part if _plain(key) in _INLINE + _NAME]
    fields = [key for key in part if _MAYBE.search(_plain(key)) and key not in known]
    return part if known or not fields else part[fields[0]]


def _name(value: Any, depth: int) -> str | None:
    """A name as `ImageRoot.read` takes it; None where the value is no known notation."""
    if isinstance(value, str):
        return value or None
    if not isinstance(value, dict) or not depth:
        return None
    keys = {_plain(key): one for key, one in value.items()}
    away = None
    for key in (*_INLINE, *_NAME):
        one = keys.get(key)
        if key in _INLINE and isinstance(one, str) and one:
            return one if one.startswith("data:") else f"data:image/unknown;base64,{one}"
        name = _name(one, depth - 1)
        if name is not None and not _WEB.match(name):
            return name
        away = away or name
    return away


def _inlined(value: Any, plain: str) -> Any:
    """The value of a field such as `image_base64`, as an object that says so."""
    if not re.search(r"base64|b64|bytes", plain):
        return value
    if isinstance(value, list):
        return [_inlined(one, plain) for one in value]
    return {"base64": value} if isinstance(value, str) and value else value


def _unknown(where: str, value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(ascii(key)[:50] for key in list(value)[:8]) or "none"
        what = f"an object with other keys than are known ({keys})"
    else:
        what = f"{value!r}"[:50]
    return f"{where} names an image by {what}; a path, a data: URL or base64 belongs there"


def _is_clear(value: Any) -> bool:
    """Whether a value looks like the name of an image, or several, by itself."""
    if isinstance(value, list):
        return bool(value) and all(_is_clear(one) for one in value)
    if isinstance(value, dict):
        name = _name(value, MAX_DEPTH)
        return name is not None and (name.startswith("data:image/") or is_image_name(name))
    return isinstance(value, str) and _is_file(value)


def parse_json_text(value: Any) -> Any:
    """Parse a text that is JSON of messages, as tables store them; other values are returned as they are."""
    if isinstance(value, str) and _PACKED.match(value):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # a text that begins so
            return value
    return value


def _is_media(value: Any) -> bool:
    """Whether a field such as `video` holds a file: no text about it, number or empty list."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict):
        return any(_plain(key) in _INLINE + _NAME for key in first)
    return isinstance(first, str) and bool(_MEDIA.fullmatch(first))


def _is_file(text: str) -> bool:
    """Whether a text is nothing but the name of an image, or an image in base64."""
    if is_base64(text):
        return True
    if len(text) > 4096 or " " in text:
        return text.startswith("data:image/") and " " not in text
    return text.startswith("data:image/") or (is_image_name(text) and not re.search(r"\s", text))


@lru_cache(4096)
def _plain(key: str) -> str:
    """A key as it is compared: `image_path`, `imagePath` and `image-path` are one."""
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _same(name: str) -> str:
    """Equal for names of one file."""
    return name if name.startswith("data:") or _WEB.match(name) else posixpath.normpath(name)
