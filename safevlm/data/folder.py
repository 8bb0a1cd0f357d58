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

OTHER_FILES = "files whose names are not those of images"
OTHER_IMAGES = "files that hold an image but are not named like one"
SIDE_FILES = "side files (such as ._name of macOS)"
"""Why files are passed over."""

APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
"""What macOS's side files begin with (RFC 1740, appendix A and B)."""

_WORDS = (".txt", ".json")
"""Files beside images, often one for each, that are not opened to see whether they hold an image."""


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

    A file is an image if its name ends in one of `SUFFIXES`, in upper or lower case, and it is no side file of macOS.
    Other files are counted as passed over with the first shard. What cannot be opened is an item with an error;
    so are a symlink that leaves the folder, which is not followed, and a subfolder that cannot be listed. A symlink
    to a folder inside the same folder is passed over, since its files have paths of their own.

    The folder is listed once, on first use; a copy in another process lists it again.

    Args:
        root: the folder, or a URL that fsspec reads.
        files_per_shard: how many files of the sorted listing make a shard.
    """

    def __init__(self, root: str | Path, *, files_per_shard: int = 1024) -> None:
        self.root = storage.canonical(root)
        self.uri = f"folder:{self.root}"
        self.files_per_shard = files_per_shard
        self._images = ImageRoot(self.root)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_listing"}

    def shards(self) -> list[Shard]:
        """Runs of the sorted listing: `files-00000000`, `files-00001024` ...

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
            passed_over.update(self._reason(name) for name in self._listing.others)
        for name in names:
            yield self._item(name)

    def _reason(self, name: str) -> str:
        """Why a file is passed over; a local file is opened to see whether it holds an image."""
        if is_image_name(name):
            return SIDE_FILES
        if storage.is_remote(self.root) or name.lower().endswith(_WORDS):
            return OTHER_FILES
        return OTHER_IMAGES if holds_image(_head(os.path.join(self.root, name))) else OTHER_FILES

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
                f"{self.root}: holds no images; files ending in {known} are looked for, at any depth"
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
        for name, error in _walk(root):
            (listing.others if error is None else listing.names).append(name)
            if error:
                listing.errors[name] = error
        return listing


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like that of an image (`SUFFIXES`)."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    """Names of files and of folders that cannot be listed, in no order.

    Each comes with its error: empty for a file to read, None for one that is passed over."""
    inside = os.path.realpath(root)
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as found:
                items = [(item, item.is_dir(follow_symlinks=False)) for item in found]
        except OSError as error:
            if storage.may_pass(error):
                raise storage.unreachable(str(root / folder), error) from error
            name = folder or "."
            yield name, f"{_id(name)}: cannot be listed ({error.strerror}); check its permissions"
            continue
        for item, is_folder in items:
            name = f"{folder}/{item.name}" if folder else item.name
            if item.is_symlink():
                yield from _symlink(name, item.path, inside)
            elif is_folder:
                folders.append(name)
            else:
                counts = is_image_name(name) and not _is_side_file(item)
                yield name, "" if counts else None


def _is_side_file(item: os.DirEntry[str]) -> bool:
    return item.name.startswith("._") and _head(item.path).startswith(APPLE_DOUBLE)


def _head(path: str) -> bytes:
    """The first 16 bytes; empty if the file cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(16)
    except (ImageError, OSError):
        return b""


def _symlink(name: str, path: str, inside: str) -> Iterator[tuple[str, str | None]]:
    """The entry of `_walk` for a symlink, if it has one."""
    target = os.path.realpath(path)
    is_folder = os.path.isdir(target)
    if not (is_folder or is_image_name(name)):
        yield name, None
    elif not Path(target).is_relative_to(inside):
        error = f"{_id(name)}: is a symlink that leaves the folder and was not followed; copy what it names"
        yield name, error
    elif not is_folder:
        yield name, ""


def _id(name: str) -> str:
    """The name with bytes that are not UTF-8 as \\xNN."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")
