"""Reads a file as a stream and decompresses it in small pieces, in bounded memory at any compression ratio."""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from typing import Any, BinaryIO

MAX_DICTIONARY = 1 << 27
"""The largest xz dictionary, in bytes, which is held in memory: 128 MiB; xz's strongest preset takes 64."""

MAX_EXPANSION, ALWAYS_ALLOWED = 2000, 1 << 30
"""The largest compression ratio, and the decompressed bytes that any file may have: gzip reaches 1,032, bzip2 millions."""

_PIECE = 1 << 14
_READY = 1 << 16
"""Decompressed bytes that are made at once, at least."""

_HEAD = 10
"""Bytes at the start of a file that tell its compression format."""

_NOT_READ = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP\1": "lzip",
    b"\x1f\x9d": "compress",
    b"PK\3\4": "zip",
    b"7z\xbc\xaf": "7-Zip",
}
"""First bytes of compressed formats that are not read; no tar begins with them."""


class UnsupportedCompressionError(OSError):
    """The file is compressed in a format that is not read."""


class DecompressReader:
    """Reads the contents of a gzip, bzip2 or xz file forward; a file that is not compressed is read as it is.

    tarfile decompresses whole pieces of a file, and bzip2 can make a gigabyte from a piece of 10 kB.

    Args:
        file: at its start; the format is recognised by the first bytes.

    Attributes:
        compressed: whether the file is compressed.

    Raises:
        UnsupportedCompressionError: if the file is compressed in another format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = _end_of(file)
        self._packed = file.read(_HEAD)
        for magic, name in _NOT_READ.items():
            if self._packed.startswith(magic):
                raise UnsupportedCompressionError(
                    f"is packed with {name}, which is not read; unpack it, or pack it with gzip"
                )
        self._decoder = _decoder(self._packed)
        self.compressed = self._decoder is not None
        self._taken, self._made = len(self._packed), 0
        self._ready, self._at = (b"", 0) if self._decoder else (self._packed, 0)

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; empty only at the end. All that can be decompressed is returned before an error.

        Raises:
            EOFError: the packed data is cut off.
            OSError, ValueError, zlib.error, lzma.LZMAError: it is damaged, takes too much memory, expands beyond
                `MAX_EXPANSION`, or other bytes follow it.
        """
        if self._at < len(self._ready):
            piece = self._ready[self._at : self._at + size]
            self._at += len(piece)
            return piece
        if self._decoder is None:
            return self._file.read(size)
        if size >= _READY:
            return self._unpack(size)
        self._ready, self._at = self._unpack(_READY), 0
        return self.read(size) if self._ready else b""

    def exactly(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end. Memory grows with the bytes that are there, not with `size`."""
        pieces = []
        while size and (piece := self.read(min(size, 1 << 20))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> int:
        """Skip `size` bytes, fewer only at the end; returns how many were skipped."""
        left = size - len(self._ready[self._at : self._at + size])
        self._at += size - left
        if left and self._decoder is None and self._end is not None:
            here = self._file.tell()
            return size - left + self._file.seek(min(here + left, max(self._end, here))) - here
        while left and (piece := self.read(min(left, 1 << 20))):
            left -= len(piece)
        return size - left

    def _unpack(self, size: int) -> bytes:
        while not self._decoder.eof or self._begins_again():
            ended = False
            if not self._packed and getattr(self._decoder, "needs_input", True):
                self._packed = self._file.read(_PIECE)
                self._taken += len(self._packed)
                ended = not self._packed
            unpacked: bytes = self._decoder.decompress(self._packed, size)
            self._packed = getattr(self._decoder, "unconsumed_tail", b"")  # zlib's; others keep it
            if unpacked:
                self._made += len(unpacked)
                if self._made > ALWAYS_ALLOWED + MAX_EXPANSION * self._taken:
                    raise OSError(f"the compressed data swells more than {MAX_EXPANSION:,}-fold")
                return unpacked
            if ended and not self._decoder.eof:
                raise EOFError("the compressed data is cut off")
        return b""

    def _begins_again(self) -> bool:
        """Whether another compressed stream follows, as pigz and pbzip2 write them; zeros may pad the last one."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while len(rest) < _HEAD and (more := self._file.read(_PIECE)):
            self._taken += len(more)
            rest = (rest + more).lstrip(b"\0")
        decoder = _decoder(rest)
        if decoder is None and rest:
            raise OSError("other bytes follow the compressed data")
        if decoder is not None:
            self._decoder, self._packed = decoder, rest
        return decoder is not None


def _end_of(file: BinaryIO) -> int | None:
    """The file's size in bytes; None if it can only be read forward."""
    try:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError):  # a pipe, or http without lengths
        return None
    return end


def _decoder(head: bytes) -> Any:
    """The decompressor for a stream that begins with these bytes; None if it is not compressed."""
    if head.startswith(b"\x1f\x8b\x08"):
        return zlib.decompressobj(wbits=31)
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):  # a block, or the end
        return bz2.BZ2Decompressor()
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0\x80")):
        return lzma.LZMADecompressor(memlimit=MAX_DICTIONARY)
    return None
