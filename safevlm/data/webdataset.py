"""WebDataset: tar files in which the members of a sample share a key and follow one another.

Keys and brace patterns are the webdataset library's; the tar is read by Python's tarfile, which the
library reads with, too. The library's own loop is not used here, because it takes members of any
size into memory, passes over links, drops the second member of a name, and ends without a word at
a damaged header.
"""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from lzma import LZMAError
from typing import BinaryIO, cast

from safevlm.data import storage
from safevlm.data.folder import is_picture
from safevlm.data.image_root import MAX_BYTES, shown
from safevlm.data.source import Item, Shard, ShardError
from safevlm.data.text import clean, json_text
from safevlm.data.unpacked import Unpacked
from safevlm.errors import MissingExtraError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_TEXT_BYTES = 1 << 22
"""The largest `.txt` or `.json` that is read, 4 MiB: it is held together with its sample's pictures."""

MAX_HEADER = 1 << 20
"""Bytes of a long name or pax header; tarfile reads them whole."""

TAR_ERRORS: tuple[type[Exception], ...] = (
    *(tarfile.TarError, zlib.error, LZMAError, ArithmeticError, LookupError, MemoryError),
)
"""What tarfile raises on damaged data, beside what a file system does."""


@dataclass(frozen=True)
class _Member:
    """A member of the tar: `data` of a picture or text; `error` where there is none to be had."""

    key: str
    name: str
    data: bytes = b""
    error: str = ""


class WebDatasetSource:
    """Pictures in tar files, one shard per tar; caption from `.txt` or a `.json` with a caption or text.

    A `.txt` or `.json` that cannot be read leaves its pictures with a `text_error`.

    Every picture of a sample is an item, numbered in the order of its members (`key.0.jpg`,
    `key.1.jpg`). Where a key comes again later in the tar, its pictures go on with the numbers.

    Args:
        url: a tar, a brace pattern, a glob, or a folder that holds tars; local or remote.
        max_bytes: the largest picture, and the most of one sample's bytes that are held.
    """

    def __init__(self, url: str, *, max_bytes: int = MAX_BYTES) -> None:
        self.url = storage.canonical(url)
        self.uri = f"wds:{self.url}"
        self.max_bytes = max_bytes

    def shards(self) -> list[Shard]:
        """One per tar, named by its path below the pattern. Raises DataError where there is none."""
        return [Shard(name, storage.fingerprint(url)) for name, url in self._files.items()]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The tar's pictures, read as a stream.

        Raises:
            ShardError: the tar is missing, damaged, cut off, or holds no picture.
        """
        url = self._files.get(shard.name, "")
        seen: dict[str, int] = {}
        try:
            with storage.open_binary(url) as file:
                for sample in self._samples(file):
                    for item in _items(sample, seen.get(sample[0].key, 0)):
                        seen[item.id] = item.number + 1
                        yield item
        except (*storage.failures(), *TAR_ERRORS) as error:
            raise ShardError(
                f"{shard.name}: the tar breaks off ({storage.reason(error)}); download or write it again"
            ) from error
        if not seen:
            raise ShardError(f"{shard.name}: holds no pictures; members such as 0001.jpg are looked for")

    @cached_property
    def _files(self) -> dict[str, str]:
        return storage.matching(self.url, SUFFIXES)

    def _samples(self, file: BinaryIO) -> Iterator[list[_Member]]:
        """Members of one key that follow one another; what was read stands where the tar breaks off."""
        sample: list[_Member] = []
        broken: BaseException | None = None
        try:
            for member in self._members(file):
                if sample and member.key != sample[0].key:
                    yield sample
                    sample = []
                sample.append(member)
        except (*storage.failures(), *TAR_ERRORS) as error:
            broken = error
            if sample:
                sample.append(
                    _Member(sample[0].key, "", error="the tar breaks off here, maybe before a text")
                )
        if sample:
            yield sample
        if broken:
            raise broken

    def _members(self, file: BinaryIO) -> Iterator[_Member]:
        """Pictures and texts in their order, at most `max_bytes` of one key."""
        split = _key_rule()
        last, held = "", 0
        with tarfile.open(fileobj=cast(BinaryIO, Unpacked(file)), mode="r|", tarinfo=_Header) as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # or they pile up
                name = info.name
                if info.isdir() or not (_is_text(name) or is_picture(name)):
                    continue
                key = clean(split(name))
                last, held = key, (held if key == last else 0) + info.size
                error = self._refusal(info, held)
                if error:
                    yield _Member(key, name, error=error)
                    held -= info.size
                else:
                    extracted = tar.extractfile(info)
                    yield _Member(key, name, extracted.read() if extracted else b"")

    def _refusal(self, info: tarfile.TarInfo, held: int) -> str:
        """Why a member is not read; empty where it is."""
        name = shown(info.name)
        if not info.isreg():
            return f"{name}: is a link or device in the tar, which is not followed; store the file itself"
        if info.name.startswith("/") or ".." in info.name.split("/"):
            return f"{name}: its path climbs out of the archive, so it was not read; rename the member"
        limit = min(self.max_bytes, MAX_TEXT_BYTES) if _is_text(info.name) else self.max_bytes
        if info.size > limit:
            return f"{name}: has {info.size:,} bytes, more than the limit of {limit:,}; shrink it"
        if held > self.max_bytes:
            return f"{name}: its sample has more than {self.max_bytes:,} bytes, the limit; split the sample"
        return ""


def _items(sample: list[_Member], first: int) -> Iterator[Item]:
    """The sample's pictures, numbered from `first`, with the first text that is there."""
    texts, errors = [], []
    sides = [member for member in sample if not is_picture(member.name)]
    for member in sorted(sides, key=lambda side: side.name.lower().endswith(".json")):
        text, error = _words(member)
        texts += [text] if text else []
        errors += [error] if error else []
    text, text_error = next(iter(texts), ""), next(iter(errors), "")
    pictures = [member for member in sample if is_picture(member.name)]
    for number, member in enumerate(pictures, first):
        data = None if member.error else member.data
        yield Item(member.key, number, data, member.error, text, text_error)


def _words(side: _Member) -> tuple[str, str]:
    """What a `.txt` or `.json` says, or why that cannot be told."""
    if side.error or not side.name.lower().endswith(".json"):
        return clean(side.data.decode("utf-8", "backslashreplace")), side.error
    try:
        return json_text(side.data), ""
    except ValueError as error:
        return "", f"{shown(side.name)}: is no JSON ({error}); correct it"


def _is_text(name: str) -> bool:
    return name.lower().endswith((".txt", ".json"))


class _Header(tarfile.TarInfo):
    """A member's header; a damaged one is an error, where tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the zeros that end a whole archive
                raise
            raise tarfile.ReadError(f"no end mark at byte {tarfile_.offset:,}: {error}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        kinds = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X")
        if header.type in kinds and header.size > MAX_HEADER:
            raise tarfile.ReadError(f"an extended header of {header.size:,} bytes")
        return header


def _key_rule() -> Callable[[str], str]:
    """A member's name -> the key of its sample, as the webdataset library cuts it."""
    try:
        from webdataset.tariterators import base_plus_ext
    except ImportError as error:
        raise MissingExtraError("webdataset", "scan") from error
    return lambda name: base_plus_ext(name)[0] or name
