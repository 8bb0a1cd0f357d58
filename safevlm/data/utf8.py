"""A text file as UTF-8, whatever it is encoded in and compressed with."""

from __future__ import annotations

import codecs
import io
import json
import lzma
import zlib
from typing import Any, BinaryIO

from safevlm.data.unpacked import OtherPackerError, Unpacked
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
        DataError: compressed in another way; when it is read, damaged or cut off. Without the file's name.
    """
    raw = _Utf8(file)
    text = io.BufferedReader(raw, _PIECE)
    if raw.plain and start:
        file.seek(raw.mark + start)
        return io.BufferedReader(_Utf8(file, plain=True), _PIECE)
    while start:
        start -= len(text.read(min(start, _PIECE))) or start
    return text


class _Utf8(io.RawIOBase):
    """`as_utf8` without a buffer; `plain` where the text is the file itself behind `mark` bytes."""

    def __init__(self, file: BinaryIO, *, plain: bool = False) -> None:
        self.plain, self.mark = plain, 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._source: Any = file
        self._ready = b""
        if not plain:
            try:
                self._source = unpacked = Unpacked(file)
            except OtherPackerError as error:
                raise DataError(str(error)) from error
            head = self._begin()
            self._ready = self._decode(head)
            self.plain = self._decoder is None and not unpacked.compressed

    def _begin(self) -> bytes:
        """The first bytes, with the decoder that they ask for."""
        head = b""
        while len(head) < _HEAD and (more := self._unpack(_HEAD - len(head))):
            head += more
        encoding = json.detect_encoding(head)
        if encoding == "utf-8-sig":
            self.mark = len(codecs.BOM_UTF8)
            return head[self.mark :]
        if encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        return head

    def _unpack(self, size: int) -> bytes:
        try:
            return bytes(self._source.read(size))
        except (EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
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
        """Fill the buffer, or a part of it; 0 at the end alone."""
        while not self._ready:
            data = self._unpack(_PIECE)
            self._ready = self._decode(data)
            if not data and not self._ready:
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
