"""Expands sparse files in tars: stored bytes, and a map of where they belong; the rest of the file is zeros.

GNU tar writes four forms: old GNU (in header blocks), and in pax headers 0.0, 0.1 and 1.0 (the map before the data).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SPARSE_KEYS = frozenset(
    b"GNU.sparse." + key
    for key in (
        *(b"major", b"minor", b"name", b"realsize", b"size"),
        *(b"map", b"offset", b"numbytes", b"numblocks"),
    )
)
"""Pax headers that tell of a sparse file."""

MAX_PIECES = 1 << 16
"""Pieces of one sparse file."""

_BLOCK, _MAX_DIGITS = 512, 20


class SparseError(ValueError):
    """The map of a sparse file is damaged or too long."""


@dataclass(frozen=True)
class SparseMap:
    """Where the stored bytes of a sparse file belong.

    Args:
        pieces: (offset, length) of each, in order; None where the map stands before the data.
        error: why there is no map; empty where there is.
    """

    pieces: tuple[tuple[int, int], ...] | None = ()
    error: str = ""

    def expand(self, data: bytes, size: int) -> bytes:
        """The file of `size` bytes. Raises SparseError if map, data and size do not fit together."""
        if self.error:
            raise SparseError(self.error)
        pieces, at = (self.pieces, 0) if self.pieces is not None else _leading_map(data)
        if sum(length for _, length in pieces) != len(data) - at:
            raise SparseError("its sparse map does not fit its data")
        file, end = bytearray(size), 0
        for offset, length in pieces:
            if offset < end or offset + length > size:
                raise SparseError("its sparse map is out of order or beyond its size")
            file[offset : offset + length] = data[at : at + length]
            at, end = at + length, offset + length
        return bytes(file)


def gnu_map(blocks: Sequence[bytes]) -> SparseMap:
    """The map of a header of type S and of the extension blocks behind it."""
    fields = [blocks[0][386:482], *(block[:504] for block in blocks[1:])]
    numbers = []
    for part in fields:
        for start in range(0, len(part), 12):
            number = header_number(part[start : start + 12])
            if number is None:
                return SparseMap(error="its sparse map has a negative number, or none")
            numbers.append(number)
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    while pieces and pieces[-1] == (0, 0):  # unused
        pieces.pop()
    return _checked(pieces)


def pax_map(records: Iterable[tuple[bytes, bytes]]) -> tuple[SparseMap, int, bytes]:
    """The map, the file's size and its name (empty where it is not told) from the pax headers of one member."""
    told = dict(records)
    size = _decimal(told.get(b"GNU.sparse.realsize", told.get(b"GNU.sparse.size", b"")))
    name = told.get(b"GNU.sparse.name", b"")
    if size is None:
        return SparseMap(error="its sparse size is negative or no number"), 0, name
    if b"GNU.sparse.major" in told and told[b"GNU.sparse.major"] != b"0":
        is_known = (told[b"GNU.sparse.major"], told.get(b"GNU.sparse.minor")) == (b"1", b"0")
        return SparseMap(None, "" if is_known else "its sparse format is unknown"), size, name
    if b"GNU.sparse.map" in told:
        words = told[b"GNU.sparse.map"].split(b",")
    else:
        words = [value for key, value in records if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
    return _paired(words), size, name


def _leading_map(data: bytes) -> tuple[tuple[tuple[int, int], ...], int]:
    """The map in front of the data (format 1.0: one number a line, how many first), and where the data begins."""
    lines = data[: 2 * (_MAX_DIGITS + 1) * (MAX_PIECES + 1)].split(b"\n", 2 * MAX_PIECES + 1)
    count = _decimal(lines[0])
    if count is None or count > MAX_PIECES or len(lines) <= 2 * count + 1:
        raise SparseError("its sparse map is damaged, or too long")
    found = _paired(lines[1 : 2 * count + 1])
    if found.error or found.pieces is None:
        raise SparseError(found.error)
    length = sum(len(line) + 1 for line in lines[: 2 * count + 1])
    return found.pieces, length + -length % _BLOCK


def _paired(words: Sequence[bytes]) -> SparseMap:
    numbers = [_decimal(word) for word in words if word or len(words) > 1]
    if None in numbers or len(numbers) % 2:
        return SparseMap(error="its sparse map has a negative number, or none")
    known = [number for number in numbers if number is not None]
    return _checked(list(zip(known[::2], known[1::2], strict=True)))


def _checked(pieces: list[tuple[int, int]]) -> SparseMap:
    if len(pieces) > MAX_PIECES:
        return SparseMap(error=f"its sparse map has more than {MAX_PIECES:,} pieces")
    return SparseMap(tuple(pieces))


def _decimal(word: bytes) -> int | None:
    return int(word) if word.isdigit() and len(word) <= _MAX_DIGITS else None


def header_number(field: bytes) -> int | None:
    """A number in a header: octal digits or, of GNU's, to the base 256; None where it is negative or none."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if field[0] > 127 or digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)
