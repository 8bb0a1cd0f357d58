"""Reads a text file as UTF-8, whatever its encoding and compression."""

from __future__ import annotations

import codecs
import io
import json
import lzma
import zlib
from typing import Any, BinaryIO

from safevlm.data.decompress import DecompressReader, UnsupportedCompressionError
from safevlm.errors import DataError

_PIECE = 1 << 16
_HEAD = 4
"""Bytes that tell the encoding, as `json.detect_encoding` does: a byte order mark, or where zeros are."""


def as_utf8(file: BinaryIO, start: int = 0) -> BinaryIO:
    """The text of a JSON or JSON Lines file in UTF-8, without a byte order mark.

    UTF-8 is passed on as it is, valid or not. UTF-16 and UTF-32 are told by a byte order mark or by their
    zeros, and gzip, bzip2 and xz by their first bytes.

    Args:
        file: at its beginning; seekable where `start` is given and the file is plain UTF-8.
        start: the byte of the text where reading begins. What is compressed or encoded otherwise is read up
            to there.

    Returns:
        A buffered stream; its positions are bytes of the text, counted from `start`.

    Raises:
        DataError: if it is compressed in another format or, when it is read, damaged or cut off. The message lacks the
            file's name.
    """
    raw = _Utf8(file)
    text = io.BufferedReader(raw, _PIECE)
    if raw.plain and start:
        file.seek(raw.bom_size + start)
        return io.BufferedReader(_Utf8(file, plain=True), _PIECE)
    while start:
        start -= len(text.read(min(start, _PIECE))) or start
    return text


class _Utf8(io.RawIOBase):
    """`as_utf8` without a buffer; `plain` where the text is the file itself behind `bom_size` bytes."""

    def __init__(self, file: BinaryIO, *, plain: bool = False) -> None:
        self.plain, self.bom_size = plain, 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._source: Any = file
        self._ready = b""
        if not plain:
            try:
                self._source = reader = DecompressReader(file)
            except UnsupportedCompressionError as error:
                raise DataError(str(error)) from error
            head = self._begin()
            self._ready = self._decode(head)
            self.plain = self._decoder is None and not reader.compressed

    def _begin(self) -> bytes:
        """The first bytes, with the decoder that they ask for."""
        head = b""
        while len(head) < _HEAD and (more := self._unpack(_HEAD - len(head))):
            head += more
        encoding = json.detect_encoding(head)
        if encoding == "utf-8-sig":
            self.bom_size = len(codecs.BOM_UTF8)
            return head[self.bom_size :]
        if encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        return head

    def _unpack(self, size: int) -> bytes:
        try:
            return bytes(self._source.read(size))
        except (EOFError, ValueError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise  # of the system or the network, not about the packed bytes
            raise DataError(f"cannot be unpacked further ({error}); download or compress it again") from error

    def _decode(self, data: bytes) -> bytes:
        if self._decoder is None:
            return data
        try:
            return self._decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise DataError(f"is damaged: no {error.encoding} ({error.reason}); write it again") from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer or a part of it; returns the number of bytes, 0 only at the end."""
        while not self._ready:
            data = self._unpack(_PIECE)
            self._ready = self._decode(data)
            if not data and not self._ready:
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
