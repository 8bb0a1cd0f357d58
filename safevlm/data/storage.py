"""Lists, opens and fingerprints files, local or remote (through fsspec).

Use it for URLs that the user gives. Names that come from the data are not trusted: read them through `ImageRoot`.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import logging
import os
import posixpath
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode

from safevlm.data.image import open_regular
from safevlm.errors import DataError, ImageError, MissingExtraError

logger = logging.getLogger(__name__)

_CLIENTS = (  # what their clients raise beside OSError, for http and the clouds
    *(("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")),
    *(("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("datasets.exceptions", "DatasetsError")),
    *(("google.auth.exceptions", "GoogleAuthError"), ("azure.core.exceptions", "AzureError")),
)
_STAMPS = (  # what file systems call the things that change with a file's content
    *("mtime", "modified", "LastModified", "last_modified", "Last-Modified", "updated", "generation"),
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "content_md5", "blob_id", "sha256"),
)


_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
_LASTING_NUMBERS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV})
MISSING = "missing"
"""The fingerprint of a file that is not there or is forbidden."""

_PASSING_STATUS = frozenset({408, 425, 429})
"""Of HTTP, beside 500 and above: timeout, too early, too many requests."""


class UnreachableError(DataError):
    """The storage fails for now, so it is unknown whether the file is missing or has changed."""


def unreachable(url: str, error: BaseException) -> UnreachableError:
    """The error for a file or folder that may be back later."""
    return UnreachableError(f"{url}: cannot be reached ({reason(error)}); run the same command again later")


def canonical(url: str | os.PathLike[str]) -> str:
    """A local path made absolute; a URL as it is."""
    text = os.fspath(url)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    return text if is_remote(text) else os.path.abspath(text)


def uri(kind: str, url: str, **options: str | None) -> str:
    """`kind:url?option=value&...` with the options that are set."""
    said = urlencode({name: value for name, value in options.items() if value is not None}, safe="/:")
    return f"{kind}:{url}?{said}" if said else f"{kind}:{url}"


def is_remote(url: str) -> bool:
    """Whether it has a protocol (`s3://`, `https://`, `memory://`, chains such as `zip://a::s3://b`)."""
    return "://" in url


def failures() -> tuple[type[Exception], ...]:
    """The exceptions that file systems raise if a file cannot be read."""
    clients = [getattr(sys.modules[module], name) for module, name in _CLIENTS if module in sys.modules]
    return (OSError, ValueError, EOFError, asyncio.TimeoutError, *clients)


def reason(error: BaseException) -> str:
    """The error's cause without the path: its `strerror`, message or type."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def may_pass(error: BaseException) -> bool:
    """Whether a failure may be temporary (EIO, a timeout, 503), unlike a file that is missing or forbidden."""
    cause = error.__cause__
    if isinstance(error, UnreachableError):
        return True
    if isinstance(error, FileNotFoundError) and cause is not None and _is_client(cause):
        return may_pass(cause)  # fsspec calls every failure of http so
    if isinstance(error, OSError) and isinstance(cause, ImageError):  # of `open_binary`
        return cause.__cause__ is not None and may_pass(cause.__cause__)
    number = getattr(error, "errno", None)
    if isinstance(error, _LASTING) or number in _LASTING_NUMBERS:
        return False
    if type(error) is OSError and number is None:
        return False  # a decoder's word for damage, not the system's
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and status >= 400:
        return status >= 500 or status in _PASSING_STATUS
    return isinstance(error, failures())


def _is_client(error: BaseException) -> bool:
    """Whether a network client raised it, and not the file system."""
    return isinstance(error, failures()) and not isinstance(error, _LASTING)


@contextmanager
def open_binary(url: str) -> Iterator[BinaryIO]:
    """Open a file for reading, seekable where its file system can. Raises one of `failures`."""
    with ExitStack() as opened:
        if is_remote(url):
            file_system, path = resolved(url)
            yield opened.enter_context(io.BufferedReader(file_system.open(path, "rb")))
            return
        try:
            file = opened.enter_context(open_regular(url))
        except ImageError as error:
            raise OSError(error.reason) from error
        yield file


def is_folder(url: str) -> bool:
    """Whether there is a folder of this name."""
    if not is_remote(url):
        return os.path.isdir(url)
    file_system, path = resolved(url)
    return bool(file_system.isdir(path))


def exists(url: str) -> bool:
    """Whether there is a file or folder of this name; raises as `fingerprint` does for a local one."""
    if not is_remote(url):
        return stamp_of(url) != MISSING
    file_system, path = resolved(url)
    return bool(file_system.exists(path))


def fingerprint(url: str) -> str:
    """A text that changes when the file does: its size with its time, etag or hash; "missing" if there is none.

    Raises:
        UnreachableError: if the storage does not answer, which says nothing about the file.
    """
    if not is_remote(url):
        return stamp_of(url)
    try:
        file_system, path = resolved(url)
        return stamp(file_system.info(path))
    except failures() as error:
        return _missing(url, error)


def stamp(info: Mapping[str, Any]) -> str:
    """A fingerprint from what a file system tells of a file."""
    told = [f"{key}={info[key]}" for key in _STAMPS if info.get(key)]
    return digest([f"size={info.get('size')}", *(told or [f"created={info.get('created')}"])])


def stamp_of(path: str, *, regular: bool = False) -> str:
    """The fingerprint of a local file, whatever its name looks like; raises as `fingerprint` does.

    Args:
        path: absolute, or relative to the current folder.
        regular: whether the stamp of folders, pipes and devices is empty, since nothing reads them.
    """
    try:
        found = os.stat(path)
    except failures() as error:
        return _missing(path, error)
    if regular and not stat.S_ISREG(found.st_mode):
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _missing(url: str, error: Exception) -> str:
    """`MISSING`; raises UnreachableError if the failure may pass."""
    if may_pass(error):
        raise unreachable(url, error) from error
    return MISSING


def digest(parts: Iterable[str]) -> str:
    """32 hex digits that depend on every part and on where one part ends."""
    joined = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        joined.update(len(raw).to_bytes(8, "big") + raw)
    return joined.hexdigest()[:32]


def matching(url: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files that a path, brace pattern, glob or folder stands for: name -> URL, sorted by name.

    Names are relative to the folder, or to the last folder before the first wildcard. A file that a
    brace pattern spells out is in it although it may not exist.

    Args:
        url: `/x/a.tar`, `s3://b/{000..127}.tar`, `/x/part-*.parquet`, or a folder, searched at any depth
            for visible files.
        suffixes: what the names of files in a folder end in, lower case.

    Raises:
        DataError: if there is no such file, nothing matches, or a folder cannot be listed.
    """
    try:
        found = _matching(url, suffixes)
    except failures() as error:
        raise DataError(
            f"{url}: cannot be listed ({reason(error)}); check the path and its permissions"
        ) from error
    return dict(sorted(found.items()))


def _matching(url: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    if is_remote(url) and not _magic(url) and url.partition("?")[0].lower().endswith(suffixes):
        if exists(url):  # asking http whether this is a folder would download it
            return {posixpath.basename(url.partition("?")[0]): url}
    elif exists(url):
        if not is_folder(url):
            return {posixpath.basename(url): url}
        wanted = (*suffixes, "/")  # a folder that no path reaches is a file that cannot be read
        every = {name: join(url, name) for name in files_below(url) if name.lower().endswith(wanted)}
        found = {name: path for name, path in every.items() if not _hidden(name)}
        if len(found) < len(every):
            hidden = next(name for name in every if name not in found)
            logger.warning(
                "%s: passed over %d files with . or _ before a name, such as %s; a pattern reaches them",
                *(url, len(every) - len(found), ascii(hidden)),
            )
        if not found:
            raise DataError(f"{url}: holds no files ending in {', '.join(suffixes)}; check the path")
        return found
    magic = _magic(url)
    if magic is None:
        raise DataError(f"{url}: no such file; check the path")
    base = url[: magic.start()].rpartition("/")[0]
    found = {}
    for pattern in _braces(url):
        paths = glob(pattern) if _magic(pattern) else [pattern]
        found |= {path.removeprefix(base).lstrip("/"): path for path in paths}
    if not any(exists(path) for path in found.values()):
        raise DataError(f"{url}: matches no file; check the pattern, and quote it in the shell")
    return found


def _magic(url: str) -> re.Match[str] | None:
    """The first wildcard: a brace, or one of `*?[` (which have other meanings in http)."""
    return re.search(r"\{" if _is_http(url) else r"[*?\[{]", url)


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _braces(url: str) -> list[str]:
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise MissingExtraError("webdataset", "scan") from error
    return list(braceexpand(url)) if "{" in url else [url]


def glob(url: str) -> list[str]:
    """The paths that match a pattern, sorted."""
    file_system, path = resolved(url)
    prefix = url[: len(url) - len(path)] if url.endswith(path) else ""
    return sorted(prefix + _same_root(found, path) for found in file_system.glob(path))


def _same_root(found: str, pattern: str) -> str:
    """Some file systems drop or add the slash at the front."""
    return "/" + found.lstrip("/") if pattern.startswith("/") else found


def files_below(url: str) -> list[str]:
    """Names of all files below a folder, relative to it; symlinks to folders are not followed.

    A symlink to a folder elsewhere is logged, since its files are not in the listing. A folder whose path is too
    long to be listed is listed itself, with a slash at the end of its name.
    """
    if is_remote(url):
        return list(stamps_below(url))
    names: list[str] = []

    def refuse(error: OSError) -> None:
        if error.errno != errno.ENAMETOOLONG:
            raise error
        names.append(f"{Path(error.filename).relative_to(url).as_posix()}/")

    inside = os.path.realpath(url)
    for folder, folders, files in os.walk(url, onerror=refuse):
        for path in (os.path.join(folder, name) for name in folders):
            if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(inside):
                logger.warning(
                    "%a: a symlink out of the folder was not followed; scan what it names as well", path
                )
        names += [Path(folder, name).relative_to(url).as_posix() for name in files]
    return names


def stamps_below(url: str) -> dict[str, str]:
    """Names of all files below a remote folder, relative to it, with their fingerprints."""
    file_system, root = resolved(url)
    found = {}
    for path, info in file_system.find(root, detail=True).items():
        name = posixpath.relpath(path.lstrip("/"), root.lstrip("/"))
        found[unquote(name) if _is_http(url) else name] = stamp(info)
    return found


def join(folder: str, name: str) -> str:
    """A file in a folder or below a URL."""
    return f"{folder.rstrip('/')}/{quote(name) if _is_http(folder) else name}"


def parent(url: str) -> str:
    """The folder that a file lies in."""
    return url.rpartition("/")[0] or "/"


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def resolved(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", "scan") from error
    try:
        file_system, path = url_to_fs(url)
    except ImportError as error:  # s3fs, gcsfs, adlfs ...
        raise DataError(f"{url}: needs a package that is not installed ({error})") from error
    return file_system, path
