"""Reads the rows of JSON files that are larger than memory, one at a time.

Python's json parses each row. What is done here is to find where rows begin, so that a file of any
size takes the memory of its largest row, and so that reading can go on from a row in the middle.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from safevlm.data.utf8 import as_utf8
from safevlm.errors import DataError

MAX_ROW = 1 << 26
"""Characters of the largest row that is read, 64 Mi: room for images that are written into it."""

_CHUNK = 1 << 16
_LOOKED_AT = 1 << 20
"""Characters of the first value that are looked at to tell what a file holds."""
_ERRORS = "surrogateescape"  # a byte that is no UTF-8 costs nothing, and byte offsets stay right
_SPACE = " \t\n\r"
_STRUCTURE = re.compile(r'\\.|["\[\]{}]', re.DOTALL)  # brackets, quotes, and what is escaped
_NUMBER = "0123456789.eE+-"  # a number may go on behind what was read; so may nothing at all


@dataclass(frozen=True)
class Element:
    """A row of a list, or one of several values that follow one another.

    Args:
        key: of the list in the file's object; empty elsewhere.
        value: the parsed row; None with an error.
        end: byte behind the row, where `elements` can go on.
        error: why a row with a clear end was not parsed, or is not understood.
        repeated: a key that an object in the row has twice, with different values; then there is an error, too.
    """

    key: str
    value: Any
    end: int
    error: str = ""
    repeated: str | None = None


class _Text:
    """The text of a file, read in pieces that are dropped once they were consumed; knows its byte offset."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.file, self.text, self.pos = as_utf8(file, start), "", 0
        self._at, self._known = start, 0  # the byte at which text[_known] is
        self._decoder = codecs.getincrementaldecoder("utf-8")(_ERRORS)
        self.ended = False

    def more(self, size: int = _CHUNK) -> bool:
        """Read the next piece and drop what was consumed; returns False at the end of the file."""
        self.byte_offset()
        self.text, self.pos, self._known = self.text[self.pos :], 0, 0
        raw = b"" if self.ended else self.file.read(size)
        self.ended = not raw
        self.text += self._decoder.decode(raw, final=self.ended)
        return not self.ended

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self.pos < len(self.text) and self.text[self.pos] in _SPACE:
                self.pos += 1
            if self.pos < len(self.text) or not self.more():
                return self.text[self.pos : self.pos + 1]

    def take(self, expected: str) -> str:
        """Consume the next character; raises DataError if it is not in `expected`."""
        found = self.peek()
        if not found:
            raise DataError(f"ends at byte {self.byte_offset():,}, in the middle; download or write it again")
        if found not in expected:
            raise DataError(
                f"has {found!r} at byte {self.byte_offset():,} where one of {expected!r} belongs; correct it"
            )
        self.pos += 1
        return found

    def value(self, key: str = "") -> Element:
        """Parse the next value; an error where it cannot be parsed although its end is clear, or says two things.

        Args:
            key: of the list that it is in.
        """
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end, repeated = _parsed(self.text, self.pos)
                if self._whole() or self.text[end : end + 1] not in _NUMBER:
                    reason = "" if repeated is None else f"at byte {self.byte_offset():,} {_twice(repeated)}"
                    self.pos = end
                    return Element(key, value, self.byte_offset(), reason, repeated)
            except RecursionError:
                return self._pass_over(key, "is nested too deeply to be parsed")
            except json.JSONDecodeError as error:
                if self._whole():
                    raise self._damage(error) from error
            except ValueError:  # Python's limit for whole numbers
                return self._pass_over(key, "has a number of too many digits")
            self.more(size)
            size *= 2

    def end(self) -> None:
        """Raise DataError if anything but white space is left."""
        if found := self.peek():
            raise DataError(
                f"has {found!r} at byte {self.byte_offset():,}, behind the end of its JSON, where nothing belongs; "
                "make one list or object of it, or, where it has one object per line, write jsonl:"
            )

    def _pass_over(self, key: str, what: str) -> Element:
        """Go behind a list or object without parsing it; the element says why."""
        error = f"at byte {self.byte_offset():,} {what}"
        size = _CHUNK
        while (end := _end_of(self.text, self.pos)) is None:
            if self._whole():
                raise self._damage(f"{what}, without an end")
            self.more(size)
            size *= 2
        self.pos = end
        return Element(key, None, self.byte_offset(), error)

    def _damage(self, what: object) -> DataError:
        return DataError(f"is damaged in the row at byte {self.byte_offset():,} ({what}); correct it")

    def _whole(self) -> bool:
        """Whether no more of the row will be read: the file has ended, or the row is too long."""
        return self.ended or len(self.text) - self.pos > MAX_ROW

    def byte_offset(self) -> int:
        """Offset of the next character in bytes of the UTF-8 text."""
        self._at += len(self.text[self._known : self.pos].encode("utf-8", _ERRORS))
        self._known = self.pos
        return self._at


def _parsed(text: str, start: int) -> tuple[Any, int, str | None]:
    """The value at `start`, the position behind it, and a key that an object has twice, if any."""
    repeated: list[str] = []

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated.extend(key for key, value in pairs if found[key] != value)
        return found

    value, end = json.JSONDecoder(object_pairs_hook=object_of).raw_decode(text, start)
    return value, end, repeated[0] if repeated else None


def _twice(key: str) -> str:
    return f"has the key {key[:100]!r} twice"


def parse(text: str) -> Element:
    """A text that is one JSON value; raises as `json.loads` does."""
    begin = len(text) - len(text.lstrip(_SPACE))
    value, end, repeated = _parsed(text, begin)
    if rest := text[end:].strip(_SPACE):
        raise json.JSONDecodeError("Extra data", text, text.index(rest, end))
    return Element("", value, end, "" if repeated is None else _twice(repeated), repeated)


def _end_of(text: str, start: int) -> int | None:
    """Where the list or object that begins at `start` ends; None where the text ends before."""
    depth, quoted = 0, False
    for found in _STRUCTURE.finditer(text, start):
        character = found[0]
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "[{":
            depth += 1
        elif not quoted and character in "]}":
            depth -= 1
            if not depth:
                return found.end()
    return None


def elements(file: BinaryIO, *, start: int = 0) -> Iterator[Element]:
    """Rows of a list, or of every list in an object, in the order of the file.

    Args:
        file: the JSON text, see `as_utf8`; seekable where `start` is given.
        start: the `end` of a row of a file that is one list, to go on behind it.

    Raises:
        DataError: if the file is not JSON or is cut off, a row has more than `MAX_ROW` characters, or anything
            follows the list or object. The message lacks the file's name.
    """
    text = _Text(file, start)
    if start:
        yield from _rows(text, "", first=False)
    elif text.take("[{") == "[":
        yield from _rows(text, "", first=True)
    else:
        yield from _lists(text)
    text.end()


def values(file: BinaryIO, *, start: int = 0) -> Iterator[Element]:
    """JSON values that follow one another, with space between them or nothing.

    Args:
        file: as for `elements`.
        start: the `end` of a value, to go on behind it.

    Raises:
        DataError: if the file is not JSON or is cut off, or a value has more than `MAX_ROW` characters. The message
            lacks the file's name.
    """
    text = _Text(file, start)
    while text.peek():
        yield text.value()


def _rows(text: _Text, key: str, *, first: bool) -> Iterator[Element]:
    """The rows of a list up to its end; `first` right behind its bracket."""
    if first and text.peek() == "]":
        text.take("]")
        return
    while first or text.take(",]") == ",":
        first = False
        yield text.value(key)


def _lists(text: _Text) -> Iterator[Element]:
    """The rows of each list in an object; its other values are passed over."""
    if text.peek() == "}":
        return
    while True:
        text.take('"')
        text.pos -= 1
        key = text.value().value
        text.take(":")
        if text.peek() == "[":
            text.take("[")
            yield from _rows(text, str(key), first=True)
        else:
            text.value()
        if text.take(",}") == "}":
            return


def first_values(file: BinaryIO) -> tuple[str, bool]:
    """The first character that is no space, and whether another value follows the first one.

    No more is read than `_LOOKED_AT` characters of the first value; where it is longer, nothing follows.
    """
    text = _Text(file, 0)
    first = text.peek()
    while len(text.text) - text.pos < _LOOKED_AT and text.more(_LOOKED_AT):
        pass
    try:
        _, text.pos, _ = _parsed(text.text, text.pos)
    except (ValueError, RecursionError):
        return first, False
    return first, bool(text.peek())
