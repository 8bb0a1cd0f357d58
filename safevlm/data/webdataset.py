"""WebDataset: tar files in which the members of a sample share a key and, as a rule, follow one another.

Keys and brace patterns are the webdataset library's. Its loop is not used here, because it takes members of any
size into memory, passes over links, drops the second member of a name, and ends without a word at a damaged
header; the tar is read by `safevlm.data.tar`.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from lzma import LZMAError

from safevlm.data import storage
from safevlm.data.captions import Caption, TextsApart, captions_of, key_digest
from safevlm.data.decompress import DecompressReader
from safevlm.data.folder import APPLE_DOUBLE, is_image_name
from safevlm.data.image import holds_image
from safevlm.data.image_root import MAX_BYTES
from safevlm.data.source import Item, Shard, ShardError
from safevlm.data.tar import FILE, FOLDER, Member, Tar
from safevlm.data.tar_sparse import SparseError
from safevlm.data.text import clean, json_text
from safevlm.printable import shortened

SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma"),
    *(".tar.zst", ".tzst", ".tar.lz4", ".tar.lz", ".tar.z"),
)
"""What tars are called; the last five are packed in ways that are not read, and their shards say so."""

MAX_TEXT_BYTES = 1 << 22
"""The largest `.txt` or `.json` that is read, 4 MiB: it is held together with its sample's images."""

MAX_MEMBERS = 10_000
"""Members of one key that are held together; behind them the sample is taken for another one of its key."""

WITHOUT_IMAGE = "samples without an image in a tar"
OTHER_IMAGES = "members of a tar that hold an image but are not named like one"
SIDE_FILES = "side files in a tar (such as ._name of macOS)"
"""Why members are passed over."""

_DAMAGE: tuple[type[Exception], ...] = (zlib.error, LZMAError, MemoryError)
"""What damaged packed data raises, beside what a file system does."""

_SIDE_NAMES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_PAX_FOLDER = re.compile(r"(^|/)PaxHeaders?(\.\w+)?(/|$)")
_PAX_RECORD = re.compile(rb"[0-9]{1,20} [\w.]+=")
_META = re.compile(r"__[^/]*__($|/)")  # as the webdataset library


@dataclass(frozen=True)
class _Part:
    """An image or text of a sample: its `data`, or the `error` why it cannot be read."""

    key: str
    name: str
    data: bytes = b""
    error: str = ""


class WebDatasetSource:
    """Images in tar files, one shard per tar; caption from `.txt` or a `.json` with a caption or text.

    A `.txt` or `.json` that cannot be read, or that may belong to another image, leaves its images with a
    `text_error`. Texts apart from their images are found by reading the tar a second time.

    Every image of a sample is an item, numbered in the order of its members (`key.0.jpg`, `key.1.jpg`). Where a
    key comes again later in the tar, its images go on with the numbers.

    Args:
        url: a tar, a brace pattern, a glob, or a folder that holds tars; local or remote.
        max_bytes: the largest image, and the most of one sample's bytes that are held.
    """

    def __init__(self, url: str, *, max_bytes: int = MAX_BYTES) -> None:
        self.url = storage.canonical(url)
        self.uri = f"wds:{self.url}"
        self.max_bytes = max_bytes

    def shards(self) -> list[Shard]:
        """One shard per tar, named by its path below the pattern. Raises DataError if there is no tar."""
        return [Shard(name, storage.fingerprint(url)) for name, url in self._files.items()]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The tar's images, read as a stream.

        Raises:
            ShardError: if the tar is missing, damaged, cut off, or holds no image.
        """
        reading = _Reading(self._files.get(shard.name, ""), shard.name, self.max_bytes)
        yield from reading.items(passed_over if passed_over is not None else Counter())

    @cached_property
    def _files(self) -> dict[str, str]:
        return storage.matching(self.url, SUFFIXES)


class _Reading:
    """Reads one tar."""

    def __init__(self, url: str, name: str, max_bytes: int) -> None:
        self.url, self.name, self.max_bytes = url, name, max_bytes
        self._numbers: dict[bytes, int] = {}
        self._without: set[bytes] = set()

    def items(self, passed_over: Counter[str]) -> Iterator[Item]:
        """The tar's images with their texts. Raises ShardError if it cannot be read to its end."""
        try:
            with storage.open_binary(self.url) as file:
                for run in _runs(self._parts(Tar(DecompressReader(file)), passed_over)):
                    yield from self._sample(run)
        except (*storage.failures(), *_DAMAGE) as error:
            raise self._broken(storage.reason(error)) from error
        apart = vars(self).get("_apart")
        if apart is not None and apart.broken:  # the first reading broke off, the second did not
            raise self._broken(apart.broken)
        if not self._numbers:
            raise ShardError(f"{self.name}: holds no images; members such as 0001.jpg are looked for")
        if without := len(self._without - self._numbers.keys()):
            passed_over[WITHOUT_IMAGE] += without

    def _broken(self, reason: str) -> ShardError:
        return ShardError(f"{self.name}: the tar breaks off ({reason}); download or write it again")

    def _sample(self, run: Sequence[_Part]) -> Iterator[Item]:
        """The images of members that follow one another."""
        key, digest = run[0].key, key_digest(run[0].key)
        images = [part for part in run if is_image_name(part.name)]
        if not images:
            self._without.add(digest)
            return
        told = self._texts(key, [part.name for part in images], _captions(run))
        for number, (image, (text, error)) in enumerate(
            zip(images, told, strict=True), self._numbers.get(digest, 0)
        ):
            self._numbers[digest] = number + 1
            yield Item(key, number, None if image.error else image.data, image.error, text, error)

    def _texts(self, key: str, images: Sequence[str], beside: Sequence[Caption]) -> list[tuple[str, str]]:
        """Each image's text and text error: of the texts beside it, else of those elsewhere in the tar."""
        told = captions_of(images, beside)
        if all(text or error for text, error in told):
            return told
        apart, reason = self._apart.find(key)
        found = captions_of(images, [*beside, *apart]) if apart else [("", reason)] * len(images)
        return [own if any(own) else other for own, other in zip(told, found, strict=True)]

    @cached_property
    def _apart(self) -> TextsApart:
        """The tar read for its texts alone; on a local disk its images are skipped, not read."""
        found = TextsApart()
        try:
            with storage.open_binary(self.url) as file:
                for run in _runs(self._parts(Tar(DecompressReader(file)), Counter(), images=False)):
                    has_images = any(is_image_name(part.name) for part in run)
                    found.add(run[0].key, has_images, _captions(run))
        except (*storage.failures(), *_DAMAGE) as error:
            if storage.may_pass(error) and not isinstance(error, EOFError):
                raise
            found.broken = storage.reason(error)
        return found

    def _parts(self, tar: Tar, passed_over: Counter[str], *, images: bool = True) -> Iterator[_Part]:
        """Images and texts in their order, at most `max_bytes` of one key; without `images` these have no data."""
        last, held = "", 0
        for member in tar:
            name = member.name
            if member.kind == FOLDER:
                continue
            if _is_side_file(member, tar):
                passed_over[SIDE_FILES] += 1
                continue
            key = clean(key_of(name))
            if not (_is_text(name) or is_image_name(name)):
                if holds_image(tar.peek(16)):
                    passed_over[OTHER_IMAGES] += 1
                elif not _META.match(name):
                    self._without.add(key_digest(key))
                continue
            size = max(member.size, member.stored)
            last, held = key, (held if key == last else 0) + size
            if error := self._refusal(member, held):
                held -= size
                yield _Part(key, name, error=error)
            elif images or _is_text(name):
                yield _read(key, member, tar)
            else:
                yield _Part(key, name)

    def _refusal(self, member: Member, held: int) -> str:
        """Why a member is not read; empty where it is."""
        name, size = shortened(member.name), max(member.size, member.stored)
        if member.kind != FILE:
            return f"{name}: is a link or device in the tar, which is not followed; store the file itself"
        if member.name.startswith("/") or ".." in member.name.split("/"):
            return f"{name}: its path climbs out of the archive, so it was not read; rename the member"
        limit = min(self.max_bytes, MAX_TEXT_BYTES) if _is_text(member.name) else self.max_bytes
        if size > limit:
            return f"{name}: has {size:,} bytes, more than the limit of {limit:,}; shrink it"
        if held > self.max_bytes:
            return f"{name}: its sample has more than {self.max_bytes:,} bytes, the limit; split the sample"
        return ""


def key_of(name: str) -> str:
    """The key of a member's sample, as the webdataset library cuts it; the name itself where that drops it."""
    folder, slash, base = name.rpartition("/")
    stem, dot, _ = base.partition(".")
    if stem and dot:
        return folder + slash + stem
    if slash and dot and "." not in folder.rpartition("/")[2]:
        return folder + slash
    return name


def _runs(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    """Parts of one key that follow one another; what was read stands where the tar breaks off."""
    run: list[_Part] = []
    try:
        for part in parts:
            if run and (part.key != run[0].key or len(run) == MAX_MEMBERS):
                yield run
                run = []
            run.append(part)
    except (*storage.failures(), *_DAMAGE):
        if run:
            yield [*run, _Part(run[0].key, "", error="the tar breaks off here, maybe before a text")]
        raise
    if run:
        yield run


def _read(key: str, member: Member, tar: Tar) -> _Part:
    """A member with its bytes."""
    try:
        return _Part(key, member.name, tar.read(member))
    except SparseError as error:
        return _Part(key, member.name, error=f"{shortened(member.name)}: {error}; store the file itself")


def _captions(run: Sequence[_Part]) -> list[Caption]:
    """The texts among members of one key."""
    return [_caption(part) for part in run if not is_image_name(part.name)]


def _caption(part: _Part) -> Caption:
    """The text of a `.txt` or `.json`, or why it cannot be read."""
    if part.error or not part.name.lower().endswith(".json"):
        return Caption(part.name, clean(part.data.decode("utf-8", "backslashreplace")), part.error)
    try:
        return Caption(part.name, json_text(part.data))
    except ValueError as error:
        return Caption(
            part.name, error=f"{shortened(part.name)}: is no JSON of a known form ({error}); correct it"
        )


def _is_text(name: str) -> bool:
    return name.lower().endswith((".txt", ".json"))


def _is_side_file(member: Member, tar: Tar) -> bool:
    """Whether it is a side file of another program, judged by its content: an image with such a name is read."""
    folder, _, base = member.name.rpartition("/")
    if member.kind != FILE:
        return False
    if base.startswith("._"):
        return tar.peek(4) in APPLE_DOUBLE
    if _PAX_FOLDER.search(folder):
        return _PAX_RECORD.match(tar.peek(64)) is not None
    return base in _SIDE_NAMES
