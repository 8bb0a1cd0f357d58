"""A file as a stream of bytes, unpacked a piece at a time where it is compressed, however much it swells."""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from typing import Any, BinaryIO

MAX_DICTIONARY = 1 << 27
"""Bytes that xz may look back, which it holds: 128 MiB; its strongest preset takes 64."""

MAX_SWELLING, FREE_SWELLING = 2000, 1 << 30
"""Bytes that one packed byte may become, and those that any file may: gzip makes at most 1,032, bzip2 millions."""

_PIECE = 1 << 14
_READY = 1 << 16
"""Unpacked bytes that are made at once, at least."""

_HEAD = 10
"""Bytes that tell what a file is packed with."""

_NOT_READ = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP\1": "lzip",
    b"\x1f\x9d": "compress",
    b"PK\3\4": "zip",
    b"7z\xbc\xaf": "7-Zip",
}
"""First bytes of other packers, which tars do not begin with."""


class OtherPackerError(OSError):
    """A file that is packed in a way that is not read."""


class Unpacked:
    """Reads forward through what gzip, bzip2 or xz packed, or the file as it is where none of them did.

    tarfile would unpack whole pieces of the packed file, of which bzip2 can make a gigabyte from 10 kB.

    Args:
        file: at its start; what it is packed with is told by its first bytes.

    Attributes:
        compressed: whether it is packed.

    Raises:
        OtherPackerError: it is packed with another packer.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = _end_of(file)
        self._packed = file.read(_HEAD)
        for magic, name in _NOT_READ.items():
            if self._packed.startswith(magic):
                raise OtherPackerError(
                    f"is packed with {name}, which is not read; unpack it, or pack it with gzip"
                )
        self._decoder = _decoder(self._packed)
        self.compressed = self._decoder is not None
        self._taken, self._made = len(self._packed), 0
        self._ready, self._at = (b"", 0) if self._decoder else (self._packed, 0)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end alone; all that can be unpacked comes before an error.

        Raises:
            EOFError: the packed data is cut off.
            OSError, ValueError, zlib.error, lzma.LZMAError: it is damaged, takes too much memory, swells beyond
                `MAX_SWELLING`, or other bytes follow it.
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
        """`size` bytes, fewer only at the end; held as they come, so that a false size reserves nothing."""
        pieces = []
        while size and (piece := self.read(min(size, 1 << 20))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes, fewer only at the end; returns how many there were."""
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
                if self._made > FREE_SWELLING + MAX_SWELLING * self._taken:
                    raise OSError(f"the compressed data swells more than {MAX_SWELLING:,}-fold")
                return unpacked
            if ended and not self._decoder.eof:
                raise EOFError("the compressed data is cut off")
        return b""

    def _begins_again(self) -> bool:
        """Whether another packed stream follows, as parallel packers write them; zeros may pad the last one."""
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
    """Where the file ends; None where it can only be read forward."""
    try:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError):  # a pipe, or http without lengths
        return None
    return end


def _decoder(head: bytes) -> Any:
    """What unpacks a stream that begins like this; None where it is not packed."""
    if head.startswith(b"\x1f\x8b\x08"):
        return zlib.decompressobj(wbits=31)
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):  # a block, or the end
        return bz2.BZ2Decompressor()
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0\x80")):
        return lzma.LZMADecompressor(memlimit=MAX_DICTIONARY)
    return None
