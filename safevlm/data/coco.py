"""COCO's JSON: an object with a list of images and one of annotations, joined by image_id."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from safevlm.data import storage
from safevlm.data.ids import id_of
from safevlm.data.json_stream import elements
from safevlm.data.rows import RowSource, SourceRow
from safevlm.data.text import MAX_TEXT, clean, plain
from safevlm.errors import DataError


class CocoSource(RowSource):
    """`{"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}`.

    The text of an image is its captions, one per line; ids are equal as `id_of` says. Everything else (boxes,
    outlines, URLs) is passed over while it is read; names and captions wait in a temporary database, not in
    memory. Captions that belong to no image are counted with the first shard.
    """

    kind = "coco"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_all"}

    def rows(self, start: int, first: int) -> Iterator[tuple[SourceRow, int]]:
        """See `RowSource.rows`; a position is the number of an image."""
        with _kept():
            for number, key, name, error, text in self._all.images(start):
                id = f"{self.name}:{number}" if key is None else clean(key)
                yield (
                    SourceRow(id, () if error else (name,), clean(text), error and f"{id}: {error}"),
                    number + 1,
                )

    def passed_over(self) -> Counter[str]:
        """See `RowSource.passed_over`."""
        with _kept():
            return self._all.passed_over

    @cached_property
    def _all(self) -> _Catalogue:
        """Every image's id, name, error and captions."""
        catalogue, keys = _Catalogue(), set()
        with storage.open_binary(self.url) as file:
            for element in elements(file):
                keys.add(element.key)
                if element.key == "images":
                    bad = f"{element.error}; correct the row of 'images'"
                    catalogue.add_image(*((None, "", bad) if element.error else _image(element.value)))
                elif element.key == "annotations":
                    if element.error:  # whose caption it is, nobody knows
                        raise DataError(f"has an annotation that {element.error}; correct it")
                    catalogue.add_caption(*_caption(element.value))
                elif isinstance(element.value, Mapping) and "file_name" in element.value:
                    catalogue.passed_over["rows with a file_name outside the list 'images'"] += 1
        catalogue.index()
        if "images" not in keys:
            found = ", ".join(sorted(key for key in keys if key)) or "none"
            raise DataError(
                f"has no images in a list 'images' (lists with rows: {found}); COCO's JSON has one. If this is "
                "one object of JSON Lines, write jsonl:"
            )
        return catalogue


class _Catalogue:
    """Images and captions, joined in a temporary SQLite database, which goes to the disk if it is large.

    Captions may stand anywhere in the file, so that they have to be kept until all of it is read.
    """

    def __init__(self) -> None:
        self.passed_over: Counter[str] = Counter()
        # planned in one thread, read in another
        self._database = sqlite3.connect("", check_same_thread=False)
        # words as bytes, since text with lone surrogates is no text to the database
        self._database.execute(
            "CREATE TABLE images (number INTEGER PRIMARY KEY, key BLOB, name BLOB, error TEXT)"
        )
        self._database.execute("CREATE TABLE captions (number INTEGER PRIMARY KEY, key BLOB, text BLOB)")

    def add_image(self, key: str | None, name: str, error: str) -> None:
        """Add an image under the next number."""
        values = (_packed(key), name.encode("utf-8", "surrogatepass"), error)
        self._database.execute("INSERT INTO images (key, name, error) VALUES (?, ?, ?)", values)

    def add_caption(self, key: str | None, text: str, reason: str) -> None:
        """Add a caption, or count the reason why an annotation is passed over. An annotation without a caption does nothing."""
        if reason:
            self.passed_over[reason] += 1
        elif text:
            values = (_packed(key), text.encode("utf-8", "surrogatepass"))
            self._database.execute("INSERT INTO captions (key, text) VALUES (?, ?)", values)

    def index(self) -> None:
        """Index captions by image id after the last one was added, and count those that match no image."""
        self._database.execute("CREATE INDEX by_key ON captions (key, number)")
        self._database.execute("CREATE INDEX by_id ON images (key)")
        query = (
            "SELECT count(*) FROM captions WHERE NOT EXISTS (SELECT 1 FROM images WHERE key = captions.key)"
        )
        (count,) = self._database.execute(query).fetchone()
        if count:
            self.passed_over["captions that match no image"] = count

    def images(self, start: int) -> Iterator[tuple[int, str | None, str, str, str]]:
        """Number, key, name, error and captions of every image from number `start` on, in the file's order."""
        query = "SELECT number - 1, key, name, error FROM images WHERE number > ? ORDER BY number"
        for number, key, name, error in self._database.execute(query, (start,)):
            told = None if key is None else _text(key)
            yield number, told, _text(name), error, self._captions(key)

    def _captions(self, key: bytes | None) -> str:
        """An image's captions, one per line; reading stops when `MAX_TEXT` characters are certain to be reached."""
        lines: list[str] = []
        length = 0
        query = "SELECT text FROM captions WHERE key = ? ORDER BY number"
        for (caption,) in self._database.execute(query, (key,)):
            lines.append(_text(caption))
            length += len(caption)
            if length > 4 * MAX_TEXT:  # bytes: at most 4 for a character
                break
        return "\n".join(lines)


@contextmanager
def _kept() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(
            f"has names and captions that cannot be kept in a temporary file ({error}); "
            "free space in the temporary folder"
        ) from error


def _packed(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _image(value: Any) -> tuple[str | None, str, str]:
    """The image's id, its name, and what is wrong with it."""
    if not isinstance(value, Mapping):
        return None, "", "is no object; correct the row of 'images'"
    name = value.get("file_name")
    key = id_of(value.get("id"))
    if not isinstance(name, str) or not name:
        return key, "", "has no 'file_name'; correct the row of 'images'"
    return name if key is None else key, name, ""


def _caption(value: Any) -> tuple[str | None, str, str]:
    """The image's id, the caption, and why the annotation is passed over."""
    if not isinstance(value, Mapping):
        return None, "", "annotations that are no object"
    key = id_of(value.get("image_id"))
    said = value.get("caption")
    text = plain(said).strip()
    if key is None:
        return None, "", "annotations without an image_id that is a number or text"
    return key, text, "" if text or said in (None, "", []) else "captions that are no text"
