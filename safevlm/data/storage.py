"""Files on this machine or behind a URL, through fsspec: listing, opening, telling whether they changed.

A URL that the user gives is the user's choice. Names that stand inside the data are hostile and go
through `ImageRoot`, never through here.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode

from safevlm.data.image import open_regular
from safevlm.errors import DataError, ImageError, MissingExtraError

_CLIENTS = (  # what their clients raise beside OSError, for http and the clouds
    *(("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")),
    *(("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("datasets.exceptions", "DatasetsError")),
    *(("google.auth.exceptions", "GoogleAuthError"), ("azure.core.exceptions", "AzureError")),
)
_STAMPS = (  # what file systems call the things that change with a file's content
    *("mtime", "modified", "LastModified", "last_modified", "Last-Modified", "updated", "generation"),
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "content_md5", "blob_id", "sha256"),
)


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
    """What file systems raise where a file cannot be had."""
    clients = [getattr(sys.modules[module], name) for module, name in _CLIENTS if module in sys.modules]
    return (OSError, ValueError, EOFError, asyncio.TimeoutError, *clients)


def reason(error: BaseException) -> str:
    """What went wrong, without the path again."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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
            cause = str(error).removeprefix(f"{url}: ").removeprefix(f"{url!a}: ")
            raise OSError(cause.rpartition(";")[0] or cause) from error
        yield file


def is_folder(url: str) -> bool:
    """Whether there is a folder of this name."""
    if not is_remote(url):
        return os.path.isdir(url)
    file_system, path = resolved(url)
    return bool(file_system.isdir(path))


def exists(url: str) -> bool:
    """Whether there is a file or folder of this name."""
    if not is_remote(url):
        return os.path.exists(url)
    file_system, path = resolved(url)
    return bool(file_system.exists(path))


def fingerprint(url: str) -> str:
    """Changes when the file does: its size with its time, etag or hash; "missing" where there is none."""
    try:
        if not is_remote(url):
            return stamp_of(os.stat(url))
        file_system, path = resolved(url)
        return stamp(file_system.info(path))
    except failures():
        return "missing"


def stamp(info: Mapping[str, Any]) -> str:
    """A fingerprint from what a file system tells of a file."""
    told = [f"{key}={info[key]}" for key in _STAMPS if info.get(key)]
    return digest([f"size={info.get('size')}", *(told or [f"created={info.get('created')}"])])


def stamp_of(found: os.stat_result) -> str:
    """A fingerprint of a local file."""
    return f"{found.st_size}-{found.st_mtime_ns}"


def digest(parts: Iterable[str]) -> str:
    """32 hex digits that depend on every part and on where one part ends."""
    joined = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        joined.update(len(raw).to_bytes(8, "big") + raw)
    return joined.hexdigest()[:32]


def matching(url: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files that a path, brace pattern, glob or folder means: name -> URL, sorted by name.

    Names are relative to the folder, or to the last folder before the first wildcard. A file that a
    brace pattern spells out is in it although it may not exist.

    Args:
        url: `/x/a.tar`, `s3://b/{000..127}.tar`, `/x/part-*.parquet`, or a folder, searched at any depth
            for visible files.
        suffixes: what the names of files in a folder end in, lower case.

    Raises:
        DataError: no such file, nothing that matches, or a folder that cannot be listed.
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
        found = {name: join(url, name) for name in files_below(url) if name.lower().endswith(suffixes)}
        found = {name: path for name, path in found.items() if not _hidden(name)}
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
    """Names of all files below a folder, relative to it; symlinks to folders are not followed."""
    if is_remote(url):
        return list(stamps_below(url))

    def refuse(error: OSError) -> None:
        raise error

    names = []
    for folder, _, files in os.walk(url, onerror=refuse):
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
