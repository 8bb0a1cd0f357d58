"""Checks that a data set's card (README.md) makes the datasets library read files of its own folder only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from safevlm.data.boundary import parser_errors
from safevlm.data.safe_path import check_real, check_relative, text_inside
from safevlm.errors import DataError
from safevlm.printable import shortened

CARD = "README.md"
YAML = ".huggingface.yaml"
"""The same as the head of the card, in a file of its own."""

MAX_CARD = 1 << 18
"""Bytes of either, 256 KiB: the parser takes seconds for it."""

_MAX_DEPTH = 50
"""Lists and mappings within each other; the parser's time grows with the square of it."""

_MAX_PATTERNS = 10_000
_WILDCARD = re.compile(r"[*?\[]")


def check_card(folder: str) -> None:
    """Check every file and pattern that the card names, before the datasets library reads them.

    Args:
        folder: local.

    Raises:
        DataError: if the YAML is damaged or uses aliases (which may expand without bound), if a configuration
            has a wrong type, or if a file is a URL, an absolute path, above the folder, or behind a symlink
            that leaves the folder.
    """
    for name, content in _described(folder):
        where = f"{folder}: {name}"
        configs = content.get("configs")
        if not isinstance(configs, list | None):
            raise DataError(f"{where}: 'configs' is no list; correct it")
        for number, pattern in enumerate(_patterns(configs or [], where)):
            if number == _MAX_PATTERNS:
                raise DataError(f"{where}: names more than {_MAX_PATTERNS:,} files; use patterns")
            check_relative(pattern, where)
            literal = _WILDCARD.split(pattern, maxsplit=1)[0]
            check_real(folder, os.path.join(folder, literal), folder)


def _described(folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The files that describe the folder, each with its YAML."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    for name in (CARD, YAML):
        if not os.path.lexists(os.path.join(folder, name)):
            continue
        text = text_inside(folder, name, MAX_CARD)
        block = REGEX_YAML_BLOCK.search(text) if name == CARD else None
        if name == CARD and block is None:
            continue
        yield name, _mapping(block[2] if block else text, f"{folder}: {name}")


def _mapping(text: str, where: str) -> Mapping[str, Any]:
    def damaged(error: Exception) -> DataError:
        return DataError(f"{where}: is no YAML that can be read ({shortened(str(error))}); correct it")

    with parser_errors(damaged):
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise DataError(f"{where}: is nested more than {_MAX_DEPTH} deep; correct it")
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{where}: uses aliases (*name), which may swell; write the values out")
        content = yaml.safe_load(text)
    if not isinstance(content, Mapping | None):
        raise DataError(f"{where}: its YAML is no mapping; correct it")
    return content or {}


def _patterns(configs: list[Any], where: str) -> Iterator[str]:
    """Every name and pattern of files in the configurations."""
    for config in configs:
        if not isinstance(config, Mapping) or not isinstance(config.get("config_name"), str):
            raise DataError(f"{where}: a configuration has no 'config_name'; correct it")
        files, folder = config.get("data_files"), config.get("data_dir")
        found = [*_listed(files), *([] if folder is None else [folder])]
        if not all(isinstance(pattern, str) for pattern in found):
            raise DataError(
                f"{where}: the files of {shortened(config['config_name'])} are no texts, lists of texts, or lists of "
                "'split' and 'path'; correct them"
            )
        yield from found


def _listed(files: Any) -> Iterator[Any]:
    for entry in files if isinstance(files, list) else [] if files is None else [files]:
        path = entry.get("path") if isinstance(entry, Mapping) else entry
        if isinstance(entry, Mapping) and not isinstance(entry.get("split"), str):
            yield None
        yield from path if isinstance(path, list) else [path]
