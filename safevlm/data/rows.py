"""What LLaVA, COCO and JSON Lines files share: rows of text that name images, split into shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from safevlm.data import storage
from safevlm.data.ids import id_of
from safevlm.data.image_root import ImageRoot
from safevlm.data.row_images import find_images, parse_json_text
from safevlm.data.source import Item, Shard, ShardError
from safevlm.data.text import clean, has_words, plain, text_of, unread_words
from safevlm.errors import DataError, ImageError

ROWS_PER_SHARD = 1024
_LOOKED_AT = 100
"""Rows that are looked at to find the folder of the images."""


@dataclass(frozen=True)
class SourceRow:
    """A row of the file.

    Args:
        id: as the row says, or the file's name with the row's number.
        images: names of its images; none where it has text only.
        text: caption or the questions of its conversation.
        error: why the row, or an image that it names, is not understood: one more item.
        text_error: why its text is not understood.
        passed_over: why things in it give no image, once for each.
    """

    id: str
    images: tuple[str, ...] = ()
    text: str = ""
    error: str = ""
    text_error: str = ""
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Run:
    """Consecutive rows: the position and number of the first, how many they are, and their shard."""

    start: int
    first: int
    rows: int
    shard: Shard


@dataclass(frozen=True)
class _Plan:
    runs: Mapping[str, _Run]
    stamp: str


class RowSource(ABC):
    """A file of rows that name images. A row without an image gives no item; a missing image gives one with an error.

    Args:
        url: the file, local or remote.
        images: the folder that images are named in; if left out, the file's own, or `images` beside
            the file where the first images lie there.
        rows_per_shard: how many rows make a shard.
    """

    kind: ClassVar[str]

    def __init__(self, url: str, *, images: str | None = None, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self.url = storage.canonical(url)
        self.images = storage.canonical(images) if images else None
        self.uri = storage.uri(self.kind, self.url, images=self.images)
        self.name = self.url.rpartition("/")[2]
        self.rows_per_shard = rows_per_shard

    @abstractmethod
    def rows(self, start: int, first: int) -> Iterator[tuple[SourceRow, int]]:
        """Rows, each with the position behind it, from a position on (0 is the beginning).

        Args:
            start: the position behind an earlier row.
            first: number of the first row, for those without an id.

        Raises:
            DataError: if the file breaks off. The message lacks the file's name.
        """

    def passed_over(self) -> Counter[str]:
        """What gives no image outside the file's rows: reason -> how many."""
        return Counter()

    def shards(self) -> list[Shard]:
        """Runs of rows, `rows-00000000`, `rows-00001024` ...; a run without images has no items.

        Raises:
            DataError: if there is no such file, it is of another kind, no row names an image, or the storage fails
                for now.
        """
        shards = [run.shard for run in self._plan.runs.values()]
        if all(shard.images == 0 for shard in shards):
            raise DataError(f"{self.url}: names no images; check that it is of the kind {self.kind}")
        return shards

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The rows' images. Rows without one are passed over.

        Raises:
            ShardError: if the file breaks off, has changed since it was planned, or the storage fails.
        """
        run = self._plan.runs.get(shard.name)
        if run is None or storage.fingerprint(self.url) != self._plan.stamp:
            raise ShardError(f"{self.url}: has changed since the scan began; start it again")
        count = 0
        try:
            if passed_over is not None and not run.first:
                passed_over.update(self.passed_over())
            for row, _ in islice(self.rows(run.start, run.first), run.rows):
                count += 1
                if passed_over is not None:
                    passed_over.update(row.passed_over)
                yield from self._items(row)
            if count < run.rows:
                raise DataError(f"ends after {count} of {run.rows} rows; start the scan again")
        except ShardError:
            raise  # of an image's storage, with its name
        except _failures() as error:
            raise ShardError(f"{self.url}: {_told(error)}") from error

    @cached_property
    def root(self) -> ImageRoot:
        """The folder that the images are read from."""
        if self.images:
            return ImageRoot(self.images)
        folder = storage.parent(self.url)
        try:
            names = [
                name
                for row, _ in islice(self.rows(0, 0), _LOOKED_AT)
                for name in row.images
                if not name.startswith("data:")
            ]
        except _failures() as error:
            if storage.may_pass(error):
                raise storage.unreachable(self.url, error) from error
            names = []  # planning says what is wrong
        for candidate in (folder, storage.join(folder, "images")):
            if any(_readable(ImageRoot(candidate), name) for name in names):
                return ImageRoot(candidate)
        return ImageRoot(folder)

    def _items(self, row: SourceRow) -> Iterator[Item]:
        item = Item(row.id, text=row.text, text_error=row.text_error)
        for number, name in enumerate(row.images):
            try:
                yield replace(item, number=number, data=self.root.read(name))
            except ImageError as error:
                yield replace(item, number=number, error=str(error))
        if row.error:
            yield replace(item, number=len(row.images), error=row.error)

    @cached_property
    def _plan(self) -> _Plan:
        stamp = storage.fingerprint(self.url)
        runs: dict[str, _Run] = {}
        run = _Draft(0, 0)
        damage: list[Exception] = []
        for row, behind in self._until_damage(damage):
            run.add(row, self.root)
            if run.rows == self.rows_per_shard:
                self._close(run, runs)
                run = _Draft(behind, run.first + run.rows)
        if damage:
            if not runs and not run.rows:
                raise DataError(f"{self.url}: {_told(damage[0])}") from damage[0]
            run.rows, run.images = run.rows + 1, None  # the row that is not there makes reading fail, too
        self._close(run, runs)
        return _Plan(runs, stamp)

    def _until_damage(self, damage: list[Exception]) -> Iterator[tuple[SourceRow, int]]:
        """All rows up to where the file is damaged. Raises UnreachableError if the storage fails for now."""
        try:
            yield from self.rows(0, 0)
        except _failures() as error:
            if storage.may_pass(error):
                raise storage.unreachable(self.url, error) from error
            damage.append(error)

    def _close(self, run: _Draft, runs: dict[str, _Run]) -> None:
        if not run.rows:
            return
        name = f"rows-{run.first:08d}"
        shard = Shard(name, storage.digest([self.root.url, *run.told]), run.images)
        runs[name] = _Run(run.start, run.first, run.rows, shard)


class _Draft:
    """A run of rows while it is planned."""

    def __init__(self, start: int, first: int) -> None:
        self.start, self.first, self.rows = start, first, 0
        self.images: int | None = 0
        self.told: list[str] = []

    def add(self, row: SourceRow, root: ImageRoot) -> None:
        self.rows += 1
        self.images = (self.images or 0) + len(row.images) + bool(row.error)
        words = [row.id, row.text, row.error, row.text_error, *row.images]
        self.told.append(storage.digest([*words, *(root.stamp(name) for name in row.images)]))


def row_of(value: Any, otherwise: str) -> SourceRow:
    """A JSON object as a row; `otherwise` is its id where it has none."""
    if not isinstance(value, Mapping):
        return SourceRow(
            otherwise, error=f"{otherwise}: is {_type(value)} where an object belongs; correct the row"
        )
    told = id_of(value.get("id"))
    id = otherwise if told is None else clean(told)
    if _is_coco(value):
        return SourceRow(
            id,
            error=f"{id}: is a whole file of COCO's, not a row; write it to a file, and scan that with coco:",
        )
    found = find_images(value)
    error = f"{id}: {found.errors[0]}; correct the row" if found.errors else ""
    text, text_error = _words(value, found.message_fields)
    return SourceRow(id, tuple(found.names), text, clean(error), text_error, tuple(found.passed_over))


def _is_coco(value: Mapping[str, Any]) -> bool:
    """Whether an object has COCO's lists, whose captions and ids would be lost in a row."""
    images, annotations = value.get("images"), value.get("annotations")
    return (
        isinstance(images, list)
        and isinstance(annotations, list)
        and any(isinstance(image, Mapping) and {"id", "file_name"} <= image.keys() for image in images)
    )


def _words(value: Mapping[str, Any], fields: Sequence[str]) -> tuple[str, str]:
    """The row's text with that of the messages its images are in, and why some of it could not be read."""
    opened = {field: parse_json_text(value[field]) for field in fields}
    text, unread = text_of({**value, **opened}), ""
    for field, messages in opened.items():
        own = plain(messages)
        if not own and has_words(messages):
            unread = f"the words in {field!r} are written in a way that is not known"
        elif own not in text:
            text = clean(f"{text}\n{own}" if text else own)
    return text, clean(unread or ("" if text else unread_words(value)))


def _type(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions that mean that a file of rows cannot be read, or not to its end."""
    return (DataError, *storage.failures())


def _told(error: Exception) -> str:
    """The error's message with a remedy, which a DataError has already."""
    what = storage.reason(error)
    return what if isinstance(error, DataError) else f"cannot be read ({what}); check the path"


def _readable(root: ImageRoot, name: str) -> bool:
    try:
        root.read(name)
    except ImageError:
        return False
    return True
