"""Renders a template into one self-contained HTML file, which is replaced whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from safevlm.errors import DataError, MissingExtraError
from safevlm.files import replacing


def resource(name: str) -> str:
    """The text of a file of this package."""
    return (files("safevlm.report") / name).read_text("utf-8")


def csp_hash(text: str) -> str:
    """The hash by which a Content-Security-Policy allows one inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def inline_json(value: Any) -> str:
    """ASCII JSON without <, > and &: nothing in it can end its element or start another."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_document(template: str, path: Path, context: Mapping[str, Any]) -> Path:
    """Render a Jinja template, every value escaped, piece by piece into a file.

    Args:
        template: the template's text.
        path: the HTML file; replaced whole or not at all.
        context: the template's values; generators are consumed while writing.

    Raises:
        MissingExtraError: jinja2 is not installed.
        DataError: the file cannot be written.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),  # what a template takes from another one
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pieces = environment.from_string(template.lstrip()).generate(context)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as replacement:
            replacement.file.writelines(piece.encode("utf-8", "backslashreplace") for piece in pieces)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}); free space or choose another folder"
        ) from error
    return path


def cut(text: str, length: int) -> str:
    """A text of at most `length` characters; a longer one ends in …."""
    return text if len(text) <= length else text[: length - 1] + "…"


def fact(value: Any) -> str:
    """A value for people: floats with four digits, mappings as `name value`, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact(item)}" for name, item in value.items()) or "–"
    return str(value)
