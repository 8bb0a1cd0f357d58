"""A folder of pictures on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safevlm.data.image import MAX_PIXELS, decode, open_regular
from safevlm.errors import DataError, ImageError
from safevlm.types import Sample

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class FileSample(Sample):
    """A sample that came from a file.

    Args:
        sha256: hash of the file's bytes, 64 hex digits; empty where the file could not be read.
    """

    sha256: str = ""


@dataclass(frozen=True)
class _Entry:
    """One line of the listing: `error` is set where there is nothing to open."""

    id: str
    path: Path
    error: str = ""


class FolderSource:
    """Every picture below a folder, sorted by its path relative to the folder.

    Files count by their names (jpg, jpeg, png, gif, webp, bmp, tif, tiff, in any case). What cannot
    be opened is a sample with an error, never left out: also a symlink that leaves the folder
    (it is not followed) and a subfolder that cannot be listed. A symlink to a folder inside the
    same folder is passed over, since its files have paths of their own.

    The names are listed once, when the object is made; pictures are read when they are asked for.

    Args:
        root: the folder.
        max_pixels: the largest picture that is decoded, width * height.

    Raises:
        DataError: no such folder, not a folder, no pictures in it, or two files with one id.
    """

    def __init__(self, root: str | Path, *, max_pixels: int = MAX_PIXELS) -> None:
        self.root = Path(root)
        self.max_pixels = max_pixels
        if not self.root.exists():
            raise DataError(f"{self.root}: no such folder; check the path")
        if not self.root.is_dir():
            raise DataError(f"{self.root}: is a file, not a folder; give the folder that holds it")
        self._entries = sorted(_listing(self.root), key=lambda entry: entry.id)
        if not self._entries:
            known = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise DataError(
                f"{self.root}: holds no pictures; files ending in {known} are looked for, at any depth"
            )
        for one, other in zip(self._entries, self._entries[1:], strict=False):
            if one.id == other.id:
                raise DataError(
                    f"{self.root}: two files have the id {one.id!r} (undecodable names); rename one"
                )

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> FileSample:
        """Read the picture at `index`; a picture that cannot be read is a sample with an error."""
        entry = self._entries[index]
        if entry.error:
            return FileSample(entry.id, None, entry.error)
        digest = ""
        try:
            with open_regular(entry.path) as file:
                digest = _sha256(file, entry.id)
                image = decode(file, entry.id, max_pixels=self.max_pixels)
        except ImageError as error:
            return FileSample(entry.id, None, str(error), sha256=digest)
        return FileSample(entry.id, image, sha256=digest)

    def __iter__(self) -> Iterator[FileSample]:
        for index in range(len(self)):
            yield self[index]


def _sha256(file: BinaryIO, name: str) -> str:
    """Hash the file in pieces and go back to its start."""
    digest = hashlib.sha256()
    try:
        while piece := file.read(1 << 20):
            digest.update(piece)
        file.seek(0)
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error}); check the disk") from error
    return digest.hexdigest()


def _listing(root: Path) -> Iterator[_Entry]:
    """Pictures and unreachable places below `root`, in no order."""
    inside = os.path.realpath(root)
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                items = list(found)
        except OSError as error:
            name = _id(folder, root)
            yield _Entry(name, folder, f"{name}: cannot be listed ({error.strerror}); check its permissions")
            continue
        for item in items:
            path = Path(item.path)
            if item.is_symlink():
                yield from _symlink(path, root, inside)
            elif item.is_dir(follow_symlinks=False):
                folders.append(path)
            elif path.suffix.lower() in SUFFIXES:
                yield _Entry(_id(path, root), path)


def _symlink(path: Path, root: Path, inside: str) -> Iterator[_Entry]:
    """The entry of a symlink, if it has one."""
    target = os.path.realpath(path)
    is_folder, is_picture = os.path.isdir(target), path.suffix.lower() in SUFFIXES
    if not (is_folder or is_picture):
        return
    name = _id(path, root)
    if not Path(target).is_relative_to(inside):
        yield _Entry(
            name,
            path,
            f"{name}: is a symlink that leaves the folder and was not followed; copy what it names",
        )
    elif not is_folder:
        yield _Entry(name, Path(target))


def _id(path: Path, root: Path) -> str:
    """The path relative to the root with forward slashes; bytes that are not UTF-8 as \\xNN."""
    raw = os.fsencode(path.relative_to(root).as_posix())
    return raw.decode("utf-8", "backslashreplace")
