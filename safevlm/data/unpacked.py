"""A compressed file as a stream, unpacked a piece at a time, however much it swells."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any, BinaryIO

MAX_DICTIONARY = 1 << 27
"""Bytes that xz may look back, which it holds: 128 MiB; its strongest preset takes 64."""

_PIECE = 1 << 14
_HEAD = 10
"""Bytes that tell what a file is packed with."""


class Unpacked:
    """Reads like a file: what gzip, bzip2 or xz packed, or the file as it is where none of them did.

    tarfile would unpack whole pieces of the packed file, of which bzip2 can make a gigabyte from 10 kB.

    Args:
        file: at its start; what it is packed with is told by its first bytes.

    Attributes:
        compressed: whether it is packed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packed = file.read(_HEAD)
        self._decoder = _decoder(self._packed)
        self.compressed = self._decoder is not None

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end alone; all that can be unpacked comes before an error.

        Raises:
            EOFError: the packed data is cut off.
            OSError, ValueError, zlib.error, lzma.LZMAError: it is damaged, takes too much memory, or something
            else follows.
        """
        if self._decoder is None:
            given, self._packed = self._packed, b""
            return given or self._file.read(size)
        while not self._decoder.eof or self._begins_again():
            ended = False
            if not self._packed and getattr(self._decoder, "needs_input", True):
                self._packed = self._file.read(_PIECE)
                ended = not self._packed
            unpacked: bytes = self._decoder.decompress(self._packed, size)
            self._packed = getattr(self._decoder, "unconsumed_tail", b"")  # zlib's; others keep it
            if unpacked:
                return unpacked
            if ended and not self._decoder.eof:
                raise EOFError("the compressed data is cut off")
        return b""

    def _begins_again(self) -> bool:
        """Whether another packed stream follows, as parallel packers write them."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while len(rest) < _HEAD and (more := self._file.read(_PIECE)):
            rest = (rest + more).lstrip(b"\0")
        decoder = _decoder(rest)
        if decoder is not None:
            self._decoder, self._packed = decoder, rest
        elif rest:
            raise ValueError(f"{rest[:_HEAD]!r} follows the compressed data")
        return decoder is not None


def _decoder(head: bytes) -> Any:
    """What unpacks a stream that begins like this; None where it is not packed."""
    if head.startswith(b"\x1f\x8b\x08"):
        return zlib.decompressobj(wbits=31)
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return bz2.BZ2Decompressor()
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0\x80")):
        return lzma.LZMADecompressor(memlimit=MAX_DICTIONARY)
    return None
