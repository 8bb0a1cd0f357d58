"""Decides which columns of a table hold images, text and ids; refuses an ambiguous table and names the choices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from safevlm.data.ids import id_of
from safevlm.data.image_root import ImageRoot
from safevlm.data.inline import unwrapped
from safevlm.data.row_images import find_images
from safevlm.data.text import FIELDS, clean, plain
from safevlm.errors import DataError, ImageError
from safevlm.printable import shortened

IDS = ("id", "key", "__key__", "image_id", "uid")
PATHS = ("image", "images", "image_path", "image_paths", "path", "file_name", "filename", "file", "filepath")
REASONS = ("status", "error_message")
"""Where img2dataset tells why there is no image."""


OTHER_COLUMNS = "values of other columns that may hold images"
IN_MESSAGES = "rows with images in their messages beside the column of images"
"""Why something in a row is passed over."""

_NAMED = re.compile(r"(image|img|picture|photo)s?\d*(path|file|filename|filepath|base64|b64)?s?$")
"""How the name of a column of texts ends that names images, without case, `_` and `-`."""


@dataclass(frozen=True)
class Field:
    """A column as its file declares it.

    Args:
        name: several columns may have one.
        kind: image, string, number, words (lists, turns) or other; a list of images or strings as what it
            is a list of.
        type: its type, for messages.
        repeats: whether a struct in it has several fields of one name.
        bytes: whether something within it is bytes.
    """

    name: str
    kind: str
    type: str
    repeats: bool = False
    bytes: bool = False


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    Args:
        image: images: bytes, a path, `{bytes, path}`, or a list of them.
        text: captions or conversations; None without.
        id: ids; None where rows are known by their number.
        reasons: columns that tell why a row has no image.
        others: columns that are not read and may hold images, too.
    """

    image: str
    text: str | None = None
    id: str | None = None
    reasons: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        return list(dict.fromkeys(name for name in (self.image, self.text, self.id, *self.reasons) if name))

    def text_of(self, row: Mapping[str, Any]) -> str:
        """The row's words; empty without."""
        return plain(row.get(self.text)) if self.text else ""

    def unread(self, row: Mapping[str, Any]) -> list[str]:
        """The reason why something in the row that may be an image is not read, once for each such thing."""
        reasons = [OTHER_COLUMNS] * len(self.others)
        told = row.get(self.text) if self.text else None
        if isinstance(told, list):
            value = row.get(self.image)
            names = [_path(one) or "read" for one in (value if isinstance(value, list) else [value])]
            found = find_images({"images": names, "messages": told})
            reasons += [IN_MESSAGES] * bool(found.errors or set(found.names) - set(names))
        return reasons

    def id_of(self, row: Mapping[str, Any], otherwise: str) -> str:
        """The row's id; `otherwise` where it has none."""
        return identifier(row.get(self.id)) or otherwise if self.id else otherwise

    def images_of(self, row: Mapping[str, Any], root: ImageRoot, name: str) -> list[tuple[bytes | None, str]]:
        """The row's images, each as its bytes or the reason that there are none.

        An empty list has no images; no value at all is one image with an error.
        """
        value = row.get(self.image)
        values = value if isinstance(value, list) else [value]
        return [self._image(value, row, root, name) for value in values]

    def _image(
        self, value: Any, row: Mapping[str, Any], root: ImageRoot, name: str
    ) -> tuple[bytes | None, str]:
        data = value.get("bytes") if isinstance(value, Mapping) else value
        path = value.get("path") if isinstance(value, Mapping) else None
        if isinstance(data, bytes):
            try:
                return _small(unwrapped(data), root, name), ""
            except ImageError as error:
                return None, str(error)
        path = data if isinstance(data, str) else path
        if path is None:
            told = ", ".join(shortened(str(row[column])) for column in self.reasons if row.get(column))
            return (
                None,
                f"{name}: column {self.image!r} is empty{f' ({told})' if told else ''}; fetch it again",
            )
        try:
            return root.read(path), ""
        except ImageError as error:
            return None, str(error)


def identifier(value: Any) -> str | None:
    """The id in a cell as text; None where there is none (see `ids.id_of`)."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    elif isinstance(value, Decimal) and value.is_finite():
        value = int(value) if value == int(value) else str(value)
    return clean(id_of(value) or "") or None


def _path(value: Any) -> str:
    """The file that an image's value names; empty without one."""
    path = value.get("path") if isinstance(value, Mapping) else value
    return path if isinstance(path, str) else ""


def _small(data: bytes, root: ImageRoot, name: str) -> bytes:
    if len(data) > root.max_bytes:
        raise ImageError(name, f"has {len(data):,} bytes, more than the limit of {root.max_bytes:,}")
    return data


@dataclass(frozen=True)
class Choice:
    """The columns that the user named; None for those that are to be recognised."""

    image: str | None = None
    text: str | None = None
    id: str | None = None

    def columns(self, fields: Sequence[Field], where: str) -> Columns:
        """Decide which columns hold images, text and ids.

        Args:
            fields: the columns, in order.
            where: the file, for messages.

        Raises:
            DataError: if a named column is missing, of a wrong type or not the only one of its name, or if no
                column or several columns hold images.
        """
        self._check_names(fields, where)
        kinds, types = {field.name: field.kind for field in fields}, {f.name: f.type for f in fields}
        has = ", ".join(f"{shortened(name)} ({kind})" for name, kind in types.items())
        for option, name in (("image", self.image), ("text", self.text), ("id", self.id)):
            if name is not None and name not in kinds:
                raise DataError(f"{where}: no column {name!r} for {option}; it has {has}")
        image = self.image or _only_image(kinds, where, has)
        _check(
            image,
            kinds,
            types,
            ("image", "string"),
            f"{where}: images are bytes, paths or {{bytes, path}}",
        )
        text = self.text or _first(FIELDS, kinds, ("string", "words"), but=image)
        if text:
            _check(text, kinds, types, ("string", "words"), f"{where}: words are text, a list or turns")
        id = self.id or _first(IDS, kinds, ("string", "number"), but=image)
        if id:
            _check(id, kinds, types, ("string", "number"), f"{where}: ids are text or numbers")
        columns = Columns(image, text, id, tuple(name for name in REASONS if name in kinds))
        if self.image is None:
            columns = replace(columns, others=_others(fields, columns))
        for field in fields:
            if field.name in columns.names and field.repeats:
                raise DataError(
                    f"{where}: column {shortened(field.name)} has several fields with one name; rename them"
                )
        return columns

    def _check_names(self, fields: Sequence[Field], where: str) -> None:
        """Raise DataError if several columns share a name that the user gave or that would be recognised."""
        asked = [name for name in (self.image, self.text, self.id) if name]
        asked += () if self.image else PATHS
        asked += () if self.text else FIELDS
        asked += () if self.id else IDS
        asked += REASONS
        counts = Counter(field.name for field in fields)
        for field in fields:
            if counts[field.name] > 1 and (field.name in asked or (field.kind == "image" and not self.image)):
                raise DataError(
                    f"{where}: {counts[field.name]} columns are called {shortened(field.name)}; rename all but one"
                )


def _others(fields: Iterable[Field], columns: Columns) -> tuple[str, ...]:
    """Other columns that may hold images. If the image column has bytes, path columns name the same images."""
    kinds = {field.name: field.kind for field in fields}
    known = {*columns.names, *(PATHS if kinds[columns.image] == "image" else ())}
    return tuple(
        field.name
        for field in fields
        if field.name not in known
        and (
            field.bytes
            or (field.kind == "string" and _NAMED.search(re.sub(r"[^a-z0-9]", "", field.name.lower())))
        )
    )


def _check(
    name: str, kinds: Mapping[str, str], types: Mapping[str, str], wanted: tuple[str, ...], what: str
) -> None:
    if kinds[name] not in wanted:
        raise DataError(f"{what}; column {name!r} is {types[name]}; choose another")


def _only_image(kinds: Mapping[str, str], where: str, has: str) -> str:
    found = [name for name, kind in kinds.items() if kind == "image"]
    found = found or [name for name, kind in kinds.items() if kind == "string" and name in PATHS]
    if len(found) > 1:
        choices = " or ".join(f"?image={shortened(name)}" for name in found)
        raise DataError(f"{where}: several columns hold images; add {choices} to the source")
    if not found:
        raise DataError(f"{where}: no column holds images; it has {has}; say which with ?image=NAME")
    return found[0]


def _first(
    wanted: Iterable[str], kinds: Mapping[str, str], allowed: tuple[str, ...], *, but: str
) -> str | None:
    return next((name for name in wanted if name != but and kinds.get(name) in allowed), None)
