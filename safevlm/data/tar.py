"""The members of a tar, read strictly from its start to its end: ustar, GNU, pax and old formats, sparse files too.

What made this file awkward: a scan meets every kind of broken or hostile tar, and none may hang it, exhaust its
memory, or lose members silently. Python's tarfile recurses for each extended header, takes time quadratic in a
header's length, moves back at negative sizes, keeps sparse maps of any length, and ends silently at the first block
of zeros; which of these it does depends on the version of Python.

Here every number is checked, reading goes forward only, what precedes a member is limited, and the end is the
end of the file: blocks of zeros (the end mark) with members behind them, as `cat a.tar b.tar` makes, are read on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from safevlm.data.decompress import DecompressReader
from safevlm.data.tar_sparse import SPARSE_KEYS, SparseMap, gnu_map, header_number, pax_map

BLOCK = 512
MAX_EXTENDED = 1 << 20
"""Bytes of long names and pax headers in front of one member, 1 MiB: they are held."""

MAX_HEADERS = 100
"""Long names and pax headers in front of one member; sound tars have at most three."""

MAX_NAME = 1 << 14
"""Bytes of a member's name; Linux opens paths of 4,096."""

FILE, FOLDER, OTHER = "file", "folder", "other"
"""Kinds of members: with data of its own, a folder, a link, device or anything else."""

_REGULAR, _FOLDERS, _WITHOUT_DATA = (b"0", b"\0", b"7", b"S"), (b"5",), (b"1", b"2", b"3", b"4", b"5", b"6")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", (b"x", b"X"), b"g"
_EXTENDED = (_LONG_NAME, _LONG_LINK, *_PAX, _PAX_GLOBAL)
_MAX_DIGITS = 20
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)


class TarError(ValueError):
    """The tar is damaged, cut off, or asks for more than the limits."""


@dataclass(frozen=True)
class Member:
    """A member of a tar.

    Args:
        name: bytes that are not UTF-8 as lone surrogates.
        kind: `FILE`, `FOLDER` or `OTHER`.
        size: bytes of the file.
        stored: bytes of it in the tar; fewer where it is sparse.
        sparse: where the stored bytes belong; None where they are the file.
    """

    name: str
    kind: str
    size: int
    stored: int
    sparse: SparseMap | None = None


@dataclass
class _Prefix:
    """What extended headers say of the member that follows."""

    name: bytes = b""
    pax: dict[bytes, bytes] = field(default_factory=dict)
    pieces: list[tuple[bytes, bytes]] = field(default_factory=list)
    headers: int = 0
    bytes: int = 0


class Tar:
    """Iterates over the members of a tar; the data of the latest can be read until the next is asked for.

    Args:
        stream: the tar, from its first byte.
    """

    def __init__(self, stream: DecompressReader) -> None:
        self._stream = stream
        self._position = 0
        self._zeros = False
        self._left, self._padding, self._head = 0, 0, b""
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        """Every member in its order.

        Raises:
            TarError: if the tar is damaged, cut off, without an end mark, followed by other bytes, or beyond a limit.
            OSError, EOFError, zlib.error, lzma.LZMAError: as `DecompressReader.read`.
        """
        while (member := self._next()) is not None:
            self._left, self._padding, self._head = member.stored, -member.stored % BLOCK, b""
            yield member
            self._pass_over(self._left + self._padding)

    def peek(self, size: int) -> bytes:
        """The first stored bytes of the latest member; `read` gives them again."""
        if len(self._head) < size:
            self._head += self._take(min(size - len(self._head), self._left))
        return self._head[:size]

    def read(self, member: Member) -> bytes:
        """The data of the latest member.

        Raises:
            TarError: if the tar is cut off.
            SparseError: if the member's sparse map is damaged.
        """
        data = self._head + self._take(self._left)
        self._head = b""
        return data if member.sparse is None else member.sparse.expand(data, member.size)

    def _next(self) -> Member | None:
        before = _Prefix(pax=dict(self._global))
        while (block := self._block()) is not None:
            kind, size = block[156:157], _number(block[_SIZE], self._where())
            if kind not in _EXTENDED:
                return self._member(block, kind, size, before)
            before.headers, before.bytes = before.headers + 1, before.bytes + size
            if before.headers > MAX_HEADERS or before.bytes > MAX_EXTENDED:
                raise TarError(
                    f"{self._where()}: more than {MAX_HEADERS} extended headers, or {MAX_EXTENDED:,} bytes of "
                    f"them, before one member (extended header of {size:,} bytes)"
                )
            body = self._take(size)
            self._pass_over(-size % BLOCK)
            if kind == _LONG_NAME:
                before.name = body.partition(b"\0")[0]
            elif kind in (*_PAX, _PAX_GLOBAL):
                self._note(body, before, everywhere=kind == _PAX_GLOBAL)
        if before.headers:
            raise TarError(f"{self._where()}: ends behind an extended header")
        return None

    def _note(self, body: bytes, before: _Prefix, *, everywhere: bool) -> None:
        for key, value in _records(body, self._where()):
            if key in (b"path", b"size"):
                before.pax[key] = value
                if everywhere:
                    self._global[key] = value
            elif key in SPARSE_KEYS and not everywhere:
                before.pieces.append((key, value))

    def _member(self, block: bytes, kind: bytes, size: int, before: _Prefix) -> Member:
        stored = _digits(before.pax[b"size"], self._where()) if before.pax.get(b"size") else size
        name = before.pax.get(b"path") or before.name or _name(block, kind)
        sparse, real = None, stored
        if kind == b"S":
            sparse, real = self._gnu(block)
        elif before.pieces:
            sparse, real, named = pax_map(before.pieces)
            name = named or name
        if len(name) > MAX_NAME:
            raise TarError(f"{self._where()}: a name of {len(name):,} bytes")
        if kind in _FOLDERS or (kind == b"\0" and name.endswith(b"/")):
            what, name = FOLDER, name.rstrip(b"/")
        else:
            what = FILE if kind in _REGULAR else OTHER
        stored = 0 if kind in _WITHOUT_DATA else stored
        real = real if what == FILE else 0
        return Member(name.decode("utf-8", "surrogateescape"), what, real, stored, sparse)

    def _gnu(self, block: bytes) -> tuple[SparseMap, int]:
        """The old GNU sparse map, from the header and the blocks behind it, and the file's size."""
        blocks = [block]
        while blocks[-1][504 if len(blocks) > 1 else 482]:
            if len(blocks) > MAX_EXTENDED // BLOCK:
                raise TarError(f"{self._where()}: a sparse map of more than {MAX_EXTENDED:,} bytes")
            blocks.append(self._take(BLOCK))
        return gnu_map(blocks), _number(block[483:495], self._where())

    def _block(self) -> bytes | None:
        """The next header; None at the end of the archive."""
        while True:
            block = self._stream.exactly(BLOCK)
            self._position += len(block)
            if not block.strip(b"\0") and (len(block) == BLOCK or self._zeros):
                if len(block) < BLOCK:
                    return None
                self._zeros = True
                continue
            if not block:
                raise TarError(f"{self._where()}: no end mark, so the tar is cut off or empty")
            if len(block) < BLOCK:
                raise TarError(f"{self._where()}: cut off within a header")
            if not _is_header(block):
                behind = "behind the end mark, bytes that are no member" if self._zeros else "bad checksum"
                raise TarError(f"{self._where()}: {behind} of a header")
            self._zeros = False
            return block

    def _take(self, size: int) -> bytes:
        """Read `size` bytes; raises TarError if the tar ends before."""
        data = self._stream.exactly(size)
        self._position += len(data)
        self._left = max(0, self._left - len(data))
        if len(data) < size:
            raise TarError(f"{self._where()}: cut off, {size - len(data):,} bytes are missing")
        return data

    def _pass_over(self, size: int) -> None:
        passed = self._stream.skip(size)
        self._position += passed
        if passed < size:
            raise TarError(f"{self._where()}: cut off, {size - passed:,} bytes are missing")

    def _where(self) -> str:
        return f"byte {self._position:,}"


def _is_header(block: bytes) -> bool:
    """Whether the checksum is right, of unsigned bytes or, in very old tars, of signed ones."""
    told = block[_CHECKSUM].partition(b"\0")[0].strip()
    if not told or told.strip(b"01234567"):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned, checksum = sum(rest), int(told, 8)
    return checksum == unsigned or checksum == unsigned - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes, where: str) -> int:
    """A size in a header."""
    number = header_number(field)
    if number is None:
        raise TarError(f"{where}: a size that is negative or no number")
    return number


def _digits(value: bytes, where: str) -> int:
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise TarError(f"{where}: a pax header with a size that is negative or no number")
    return int(value)


def _name(block: bytes, kind: bytes) -> bytes:
    """The name in a header, with ustar's prefix; GNU keeps other things there."""
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    is_ustar = block[257:263] == b"ustar\0" and kind != b"S"
    return prefix + b"/" + name if prefix and is_ustar else name


def _records(body: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """The `length key=value` lines of a pax header."""
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + _MAX_DIGITS)
        digits = body[at : max(space, at)]
        end = at + int(digits) if digits.isdigit() else 0
        sign = body.find(b"=", space, end)
        if sign <= space or end > len(body) or body[end - 1 : end] != b"\n":
            raise TarError(f"{where}: a damaged pax header")
        yield body[space + 1 : sign], body[sign + 1 : end - 1]
        at = end
