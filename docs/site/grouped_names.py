"""Lets griffe read docstrings in which arguments share a description: `low, high: ends of the interval`."""

from __future__ import annotations

import re
from typing import Any

import griffe

GROUPED = re.compile(r"^( +)((?:\w+, )+\w+): (.+(?:\n\1 +.+)*)", re.MULTILINE)


class GroupedNames(griffe.Extension):
    """Gives each of the names its own entry, with the description of all."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = GROUPED.sub(_apart, obj.docstring.value)


def _apart(found: re.Match[str]) -> str:
    indent, names, told = found.groups()
    return "\n".join(f"{indent}{name}: {told}" for name in names.split(", "))
