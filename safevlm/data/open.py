"""Opens the source that a user names, by its kind (`wds:...`) or by recognising a path or URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl

from safevlm.data import parquet, storage, webdataset
from safevlm.data.coco import CocoSource
from safevlm.data.folder import FolderSource, is_image_name, looks_like_image
from safevlm.data.hub import HubSource
from safevlm.data.json_kind import json_kind
from safevlm.data.jsonl import JsonlSource
from safevlm.data.llava import LlavaSource
from safevlm.data.parquet import ParquetSource
from safevlm.data.save_to_disk import is_saved
from safevlm.data.source import Source
from safevlm.data.webdataset import WebDatasetSource
from safevlm.errors import DataError

_COLUMNS = ("image", "text", "id")
KINDS: dict[str, tuple[Callable[..., Source], tuple[str, ...], str]] = {
    "folder": (FolderSource, ("follow_symlinks",), "folder:/data/images"),
    "wds": (WebDatasetSource, (), "wds:/data/{000..127}.tar"),
    "parquet": (ParquetSource, _COLUMNS, "parquet:/data/train-*.parquet?image=image&text=caption"),
    "hf": (HubSource, ("config", "split", "revision", *_COLUMNS), "hf:org/name?split=train"),
    "llava": (LlavaSource, ("images",), "llava:/data/train.json?images=/data/images"),
    "coco": (CocoSource, ("images",), "coco:/data/captions.json?images=/data/images"),
    "jsonl": (JsonlSource, ("images",), "jsonl:/data/rows.jsonl?images=/data/images"),
}
"""Kind -> its source, its options, and an example."""


def open_source(text: str) -> Source:
    """Open a source. Nothing is read but what it takes to recognise its kind.

    Args:
        text: `KIND:LOCATION?OPTION=VALUE&...`, or a path or URL without a kind that only one kind fits:
            a folder of images, of tars, of Parquet files, or written by `save_to_disk`; a tar, Parquet
            or jsonl file; a JSON file whose content is LLaVA's, COCO's or JSON Lines, also compressed
            (`.json.gz`).

    Raises:
        DataError: if the kind or an option is unknown, nothing is found, or several kinds fit; the message lists
            the choices.
    """
    if not text.strip():
        raise DataError(f"no source given; write one of\n{_examples()}")
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        return _opened(kind, rest)
    if colon and re.fullmatch(r"[a-z]\w+", kind) and not rest.startswith("//") and not os.path.exists(text):
        raise DataError(f"{text}: there is no kind {kind!r}; write one of\n{_examples()}")
    location, _ = _options(
        text, tuple(dict.fromkeys(name for _, names, _ in KINDS.values() for name in names))
    )
    return _opened(_recognised(location), text)


def _opened(kind: str, rest: str) -> Source:
    make, names, example = KINDS[kind]
    location, options = _options(rest, names)
    if not location:
        raise DataError(f"{kind}: names no location; write it like {example}")
    return make(location, **options)


def _options(text: str, names: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Split off `?name=value&...` at the end. A URL keeps a query of its own."""
    location, _, query = text.rpartition("?")
    if not re.match(r"\w+=", query):
        return text, {}
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(names))
    if not unknown:
        return location, options
    if storage.is_remote(text):
        return text, {}
    known = f"it takes {', '.join(names)}" if names else "it takes none"
    raise DataError(f"{text}: unknown option {', '.join(unknown)}; {known}")


def _examples() -> str:
    return "\n".join(f"  {example}" for _, _, example in KINDS.values())


def _recognised(location: str) -> str:
    """The kind that fits a path or URL, if only one does."""
    url = storage.canonical(location)
    name = url.partition("?")[0].lower() if storage.is_remote(url) else url.lower()
    uncompressed = re.sub(r"\.(gz|bz2|xz)$", "", name)
    for known, suffixes, kind in (
        (name, webdataset.SUFFIXES, "wds"),
        (name, parquet.SUFFIXES, "parquet"),
        (uncompressed, (".jsonl", ".ndjson"), "jsonl"),
    ):
        if known.endswith(suffixes):
            return kind
    try:
        if uncompressed.endswith(".json"):
            return json_kind(url)
        if storage.is_folder(url):
            return _folder_kind(url)
        there = storage.exists(url)
    except storage.failures() as error:
        raise DataError(f"{url}: cannot be looked at ({storage.reason(error)}); check the path") from error
    if there:
        raise DataError(f"{url}: not recognised by its name; say what it is, like\n{_examples()}")
    hub = f"; if it is on the hub, write hf:{location}" if re.fullmatch(r"[\w.-]+/[\w.-]+", location) else ""
    raise DataError(
        f"{url}: no such file or folder{hub}; check the path, or say what it is like\n{_examples()}"
    )


def _folder_kind(url: str) -> str:
    """What a folder holds; several kinds are refused."""
    found = sorted(set(_kinds_in(url)))
    if "hf" in found:  # its parts are files of other kinds
        return "hf"
    if len(found) > 1:
        choices = "\n".join(f"  {kind}:{url}" for kind in found)
        raise DataError(f"{url}: holds what several kinds of source read; say which:\n{choices}")
    if not found and not storage.is_remote(url):
        names = storage.files_below(url)
        found = ["folder"] if any(looks_like_image(os.path.join(url, name)) for name in names) else []
    if not found:
        known = ", ".join((*webdataset.SUFFIXES, *parquet.SUFFIXES))
        raise DataError(f"{url}: holds no images, and no files ending in {known}; check the path")
    return found[0]


def _kinds_in(url: str) -> Iterator[str]:
    if not storage.is_remote(url) and is_saved(url):
        yield "hf"
    for name in storage.files_below(url):
        lower = name.lower()
        if lower.endswith(webdataset.SUFFIXES):
            yield "wds"
        elif lower.endswith(parquet.SUFFIXES):
            yield "parquet"
        elif is_image_name(lower):
            yield "folder"
