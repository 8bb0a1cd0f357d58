"""A folder of images, on this machine or behind a URL."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safevlm.data import storage
from safevlm.data.image import holds_image, open_regular
from safevlm.data.image_root import ImageRoot
from safevlm.data.source import Item, Shard, ShardError
from safevlm.errors import DataError, ImageError

_READ = ("jpg", "jpeg", "jpe", "jfif", "png", "apng", "gif", "webp", "bmp", "dib", "tif", "tiff")
_OTHER = (
    *("avif", "heic", "heif", "hif", "jp2", "j2k", "jpx", "jxl"),
    *("ppm", "pgm", "pbm", "pnm", "ico", "tga", "psd", "svg"),
)
SUFFIXES = frozenset(f".{name}" for name in (*_READ, *_OTHER))
"""Suffixes of image files. Formats that are not read are among them: such a file is an error, not passed over."""

OTHER_FILES = "files that are no images"
SIDE_FILES = "side files (such as ._name of macOS)"
"""Why files are passed over."""

APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
"""What macOS's side files begin with (RFC 1740, appendix A and B)."""

_WORDS = (".txt", ".json")
"""Files beside images, often one for each, that are not opened to see whether they hold an image."""

FEWEST_FILES, MOST_FILES, SHARDS = 32, 1024, 32
"""Files of a shard, and how many shards of the fewest files there are at most before shards get larger."""


@dataclass(frozen=True)
class _Listing:
    """Images, and folders that cannot be listed, sorted by id.

    Args:
        names: relative to the folder, as the file system spells them.
        errors: name -> why there is nothing to open.
        others: names of the files that are passed over.
        stamps: name -> fingerprint, of a remote folder only.
    """

    names: list[str]
    errors: dict[str, str]
    others: list[str]
    stamps: dict[str, str]


class FolderSource:
    """Every image below a folder, sorted by its path relative to the folder.

    A file is an image if its name ends in one of `SUFFIXES`, in upper or lower case, or if it begins like an image of a
    format that is read (of local files; those ending in .txt and .json are not opened), and it is no side file of macOS.
    Other files are counted as passed over with the first shard. What cannot be opened is an item with an error;
    so are a symlink that leaves the folder, which is not followed, and a subfolder that cannot be listed. A symlink
    to a folder inside the same folder is passed over, since its files have paths of their own.

    The folder is listed once, on first use; a copy in another process lists it again.

    Args:
        root: the folder, or a URL that fsspec reads.
        files_per_shard: how many files of the sorted listing make a shard; None: 32 in a small folder, so that little is
            lost where a scan is interrupted, and up to 1,024 in one of more than 16,384 files.
        follow_symlinks: whether symlinks that leave a local folder are followed, each folder once; as an option of a URI,
            yes or no.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        files_per_shard: int | None = None,
        follow_symlinks: bool | str = False,
    ) -> None:
        self.root = storage.canonical(root)
        self.follow_symlinks = _switch(follow_symlinks)
        if self.follow_symlinks and storage.is_remote(self.root):
            raise DataError(
                f"{self.root}: is no local folder, and has no symlinks to follow; leave the option out"
            )
        self.uri = f"folder:{self.root}" + ("?follow_symlinks=yes" if self.follow_symlinks else "")
        self._images = ImageRoot(self.root, follow_symlinks=self.follow_symlinks)
        self._files_per_shard = files_per_shard

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_listing"}

    @property
    def files_per_shard(self) -> int:
        """How many files of the sorted listing make a shard."""
        size = self._files_per_shard or FEWEST_FILES
        if self._files_per_shard is None:  # in powers of two, so that a few more files seldom change it
            while size < MOST_FILES and len(self._listing.names) > SHARDS * size:
                size *= 2
        return size

    def shards(self) -> list[Shard]:
        """Runs of the sorted listing: `files-00000000`, `files-00000032` ...

        Raises:
            DataError: if there is no such folder, it holds no images, two files have the same id, or the storage
                fails for now.
        """
        starts = range(0, len(self._listing.names), self.files_per_shard)
        return [self._shard(start) for start in starts]

    def read(self, shard: Shard, passed_over: Counter[str] | None = None) -> Iterator[Item]:
        """The run's images; one that cannot be read is an item with an error.

        Raises:
            ShardError: if files were added or removed since the shard was planned, or the storage fails.
        """
        names = self._run(int(shard.name.rpartition("-")[2]))
        if shard.signature.partition("-")[0] != storage.digest(names):
            raise ShardError(f"{self.root}: files were added or removed since the scan began; start it again")
        if passed_over is not None and names and names[0] == self._listing.names[0]:
            passed_over.update(
                SIDE_FILES if is_image_name(name) else OTHER_FILES for name in self._listing.others
            )
        for name in names:
            yield self._item(name)

    def _item(self, name: str) -> Item:
        id = _id(name)
        if name in self._listing.errors:
            return Item(id, error=self._listing.errors[name])
        try:
            return Item(id, data=self._images.read(name))
        except ImageError as error:
            return Item(id, error=str(error))

    def _run(self, start: int) -> Sequence[str]:
        return self._listing.names[start : start + self.files_per_shard]

    def _shard(self, start: int) -> Shard:
        names = self._run(start)
        stamps = [self._listing.stamps.get(name) or self._images.stamp(name) for name in names]
        signature = f"{storage.digest(names)}-{storage.digest(stamps)}"
        return Shard(f"files-{start:08d}", signature, len(names))

    @cached_property
    def _listing(self) -> _Listing:
        listing = self._remote() if storage.is_remote(self.root) else self._local()
        listing.names.sort(key=_id)
        if not listing.names:
            known = ", ".join(_READ)
            raise DataError(
                f"{self.root}: holds no images; files ending in {known}, or that begin like such images, are looked "
                "for, at any depth"
            )
        for one, other in zip(listing.names, listing.names[1:], strict=False):
            if _id(one) == _id(other):
                raise DataError(
                    f"{self.root}: two files have the id {_id(one)!r} (undecodable names); rename one"
                )
        return listing

    def _remote(self) -> _Listing:
        try:
            found = storage.stamps_below(self.root)
        except storage.failures() as error:
            raise DataError(
                f"{self.root}: cannot be listed ({storage.reason(error)}); check the URL and your rights"
            ) from error
        stamps = {name: stamp for name, stamp in found.items() if is_image_name(name)}
        return _Listing(list(stamps), {}, [name for name in found if name not in stamps], stamps)

    def _local(self) -> _Listing:
        root = Path(self.root)
        if not root.exists():
            raise DataError(f"{root}: no such folder; check the path")
        if not root.is_dir():
            raise DataError(f"{root}: is a file, not a folder; give the folder that holds it")
        listing = _Listing([], {}, [], {})
        for name, error in _walk(root, follow=self.follow_symlinks):
            (listing.others if error is None else listing.names).append(name)
            if error:
                listing.errors[name] = error
        return listing


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like that of an image (`SUFFIXES`)."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def looks_like_image(path: str) -> bool:
    """Whether a local file that is not named like one holds an image of a format that is read, by its first bytes."""
    return not path.lower().endswith(_WORDS) and holds_image(_head(path))


def _walk(root: Path, *, follow: bool) -> Iterator[tuple[str, str | None]]:
    """Names of files and of folders that cannot be listed, in no order.

    Each comes with its error: empty for a file to read, None for one that is passed over."""
    inside = os.path.realpath(root)
    folders, seen = [""], set[tuple[int, int]]()
    while folders:
        folder = folders.pop()
        try:
            if follow:  # a folder may be met again, by another symlink
                stat = os.stat(root / folder)
                if (stat.st_dev, stat.st_ino) in seen:
                    continue
                seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(root / folder) as found:
                items = [(item, item.is_dir(follow_symlinks=False)) for item in found]
        except OSError as error:
            if storage.may_pass(error):
                raise storage.unreachable(str(root / folder), error) from error
            name = folder or "."
            yield name, f"{_id(name)}: cannot be listed ({error.strerror}); check its permissions"
            continue
        if follow:  # so that of two symlinks to a folder always the same one is followed
            items.sort(key=lambda pair: pair[0].name, reverse=True)
        for item, is_folder in items:
            name = f"{folder}/{item.name}" if folder else item.name
            if is_folder or (follow and _leads_to_folder(item, inside)):
                folders.append(name)
            elif item.is_symlink():
                yield from _symlink(name, item.path, inside, follow=follow)
            else:
                yield name, "" if _is_image(item) else None


def _is_image(item: os.DirEntry[str]) -> bool:
    if is_image_name(item.name):
        return not _is_side_file(item)
    return looks_like_image(item.path)


def _leads_to_folder(item: os.DirEntry[str], inside: str) -> bool:
    """Whether an entry is a symlink to a folder outside; what is inside has a path of its own."""
    return (
        item.is_symlink() and item.is_dir() and not Path(os.path.realpath(item.path)).is_relative_to(inside)
    )


def _is_side_file(item: os.DirEntry[str]) -> bool:
    return item.name.startswith("._") and _head(item.path).startswith(APPLE_DOUBLE)


def _head(path: str) -> bytes:
    """The first 16 bytes; empty if the file cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(16)
    except (ImageError, OSError):
        return b""


def _symlink(name: str, path: str, inside: str, *, follow: bool) -> Iterator[tuple[str, str | None]]:
    """The entry of `_walk` for a symlink, if it has one."""
    target = os.path.realpath(path)
    is_folder, leaves = os.path.isdir(target), not Path(target).is_relative_to(inside)
    if is_folder and not leaves:
        return
    if (
        not is_folder
        and not is_image_name(name)
        and ((leaves and not follow) or not looks_like_image(target))
    ):
        yield name, None
    elif leaves and not follow:
        remedy = "copy what it names, or give --follow-symlinks"
        yield name, f"{_id(name)}: is a symlink that leaves the folder and was not followed; {remedy}"
    else:
        yield name, ""


def _switch(value: bool | str) -> bool:
    known = {"yes": True, "no": False, True: True, False: False}
    if value not in known:
        raise DataError(f"follow_symlinks is {value!r:.40}; it is yes or no")
    return known[value]


def _id(name: str) -> str:
    """The name with bytes that are not UTF-8 as \\xNN."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")
