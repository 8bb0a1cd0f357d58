"""JSON Lines: one object per line that names its images, with a caption or messages."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO

from safevlm.data import storage
from safevlm.data.json_stream import MAX_ROW, parse, values
from safevlm.data.rows import RowSource, SourceRow, row_of
from safevlm.data.utf8 import as_utf8
from safevlm.errors import DataError


class JsonlSource(RowSource):
    """`{"image": name or names, "id", "text" or "caption" or "messages"}` on every line.

    A line that is no JSON is one item with an error. Where the first object goes over several lines, or
    shares its line with the next, the file is read as objects that follow one another; where one of these is
    damaged, the file breaks off.
    """

    kind = "jsonl"

    def rows(self, start: int, first: int) -> Iterator[tuple[SourceRow, int]]:
        """See `RowSource.rows`; a position is a byte of the UTF-8 text."""
        lined = self._lined
        with storage.open_binary(self.url) as file:
            if lined:
                yield from self._lines(as_utf8(file, start), start, first)
                return
            for number, element in enumerate(values(file, start=start), first):
                id = f"{self.name}:{number}"
                bad = SourceRow(id, error=f"{id}: {element.error}; correct the row")
                yield bad if element.error else row_of(element.value, id), element.end

    def _lines(self, file: BinaryIO, start: int, number: int) -> Iterator[tuple[SourceRow, int]]:
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

    @cached_property
    def _lined(self) -> bool:
        """Whether each line is a row: False if the first line is not JSON although the file begins with an object.

        Raises:
            DataError: if the file is a JSON list.
        """
        with storage.open_binary(self.url) as file:
            text = as_utf8(file)
            while (line := text.readline(MAX_ROW)) and not line.strip():
                pass
        if _parsed(line) or not line.lstrip().startswith((b"{", b"[")):
            return True
        with storage.open_binary(self.url) as file:
            try:
                element = next(values(file), None)
            except DataError:  # a damaged line costs no other
                return True
        if element is not None and isinstance(element.value, list):
            raise DataError("is a JSON list, not an object per line; is it LLaVA's? then write llava:")
        return element is None or not isinstance(element.value, dict)


def _parsed(line: bytes) -> bool:
    try:
        parse(_decoded(line))
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(line: bytes) -> str:
    return line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _row(line: bytes, otherwise: str) -> SourceRow:
    try:
        element = parse(_decoded(line))
    except (ValueError, RecursionError) as reason:
        return _broken(otherwise, f"is no JSON ({reason})")
    return _broken(otherwise, element.error) if element.error else row_of(element.value, otherwise)


def _broken(id: str, what: str) -> SourceRow:
    return SourceRow(id, error=f"{id}: the line {what}; correct it")
