"""Reads the images that data names, from one folder. Every name in data is read through this class.

Names in JSON, Parquet and symlinks are not trusted: a name that leaves the folder is an error, and URLs are not
fetched.
"""

from __future__ import annotations

import os
import posixpath
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from safevlm.data import storage
from safevlm.data.inline import from_base64, from_data_url, is_base64, is_data_url
from safevlm.data.source import ShardError
from safevlm.errors import ImageError
from safevlm.printable import shortened

MAX_BYTES = 1 << 28
"""The largest encoded image that is read, 256 MiB: what is read has to fit into memory several times."""

PAUSES = (0.1, 0.4)
"""Seconds before each further attempt to read an image from storage that failed."""

MAX_PATH = 4096
"""Bytes of a path, Linux's PATH_MAX."""

MAX_PART = 255
"""Bytes of a file's or folder's name, NAME_MAX of all common file systems."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class ImageRoot:
    """A folder whose images are read by the names that data gives them. Nothing outside it is read.

    Args:
        url: the folder, local or remote.
        max_bytes: the largest file that is read.
        follow_symlinks: whether a symlink inside it may lead elsewhere; a name may not in any case.
    """

    url: str
    max_bytes: int = MAX_BYTES
    follow_symlinks: bool = False

    def read(self, name: str) -> bytes:
        """Read the encoded bytes of an image.

        Args:
            name: relative to the folder, or an image written out as `data:image/...;base64,...` or as bare
                base64. A file whose name could be base64, too, is read as a file.

        Raises:
            ImageError: if the name is another URL, a path or symlink that leaves the folder, longer than a path
                may be, damaged base64, or no regular file, or if the image is larger than `max_bytes`.
            ShardError: if the storage failed (EIO, a timeout, 503) in every attempt, which says nothing about
                the image.
        """
        if is_data_url(name):
            return self._small(from_data_url(name), name)
        if not is_base64(name):
            return self._read_again(name)
        try:
            return self._read_again(name)
        except ImageError:
            return self._small(from_base64(name), name)

    def _read_again(self, name: str) -> bytes:
        """Read a file, with another attempt after each of `PAUSES` if the storage fails."""
        for pause in PAUSES:
            try:
                return self._read(name)
            except ShardError:
                time.sleep(pause)
        return self._read(name)

    def _read(self, name: str) -> bytes:
        try:
            path = self._inside(name.removeprefix(f"{self.url.rstrip('/')}/"))
            with self._open(path) as file:
                data = _limited(file, self.max_bytes + 1)
        except storage.failures() as error:
            what = f"cannot be read ({storage.reason(error)})"
            if storage.may_pass(error):
                raise ShardError(
                    f"{shortened(name)}: {what}; the storage fails, run the same command again later"
                ) from error
            raise ImageError(shortened(name), what, "check the path") from error
        return self._small(data, name)

    def _small(self, data: bytes, name: str) -> bytes:
        if len(data) > self.max_bytes:
            raise ImageError(
                shortened(name), f"has more than {self.max_bytes:,} bytes, the limit", "shrink the picture"
            )
        return data

    def stamp(self, name: str) -> str:
        """A fingerprint that changes when the local image does that `read` would give.

        Empty for what is not read (outside the folder, no regular file) and for a remote image, which would
        cost a request.

        Raises:
            UnreachableError: if the storage fails, so that the file's state is unknown.
        """
        if storage.is_remote(self.url) or is_data_url(name):
            return ""
        try:
            path = self._inside(name)
        except ImageError:
            return ""
        except storage.failures():  # a name that no file system takes
            return ""
        return storage.stamp_of(path, regular=True)

    @cached_property
    def _real(self) -> str:
        """The local folder with a slash, symlinks resolved."""
        return os.path.join(os.path.realpath(self.url), "")

    @contextmanager
    def _open(self, path: str) -> Iterator[BinaryIO]:
        """Open a path that `_inside` returned."""
        if storage.is_remote(self.url):
            file_system, root = storage.resolved(self.url)
            with file_system.open(storage.join(root, path), "rb") as file:
                yield file
        else:
            with storage.open_binary(path) as file:
                yield file

    def _inside(self, name: str) -> str:
        """The path to open, relative to the root if that is remote; raises ImageError if it leaves the root."""
        if not name or "\0" in name:
            raise ImageError(shortened(name), "is no file name", "correct it in the data")
        raw = name.encode("utf-8", "surrogatepass")
        if len(raw) > MAX_PATH or max(map(len, raw.split(b"/"))) > MAX_PART:
            raise ImageError(shortened(name), "is longer than a path may be", "correct it in the data")
        if _URL.match(name):
            raise ImageError(
                shortened(name),
                "is a URL, and a scan fetches none that stands in data",
                "download the pictures first (img2dataset does) and scan what it wrote",
            )
        if storage.is_remote(self.url):
            path = posixpath.normpath(name)
            outside = path.startswith(("/", "../")) or path in ("..", ".")
        else:
            path = os.path.realpath(os.path.join(self.url, name))
            outside = not path.startswith(self._real)
            if outside and self.follow_symlinks:
                lexical = posixpath.normpath(name)
                outside = lexical.startswith(("/", "../")) or lexical in ("..", ".")
        if outside:
            raise ImageError(
                shortened(name), f"leaves the folder {self.url} and was not read", "copy the file into it"
            )
        return path


def _limited(file: BinaryIO, limit: int) -> bytes:
    """Read at most `limit` bytes in growing pieces, since one read of `limit` bytes would allocate them all."""
    pieces, size = [], 1 << 16
    while limit and (piece := file.read(min(size, limit))):
        pieces.append(piece)
        limit, size = limit - len(piece), 2 * size
    return b"".join(pieces)
