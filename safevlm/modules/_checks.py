"""Checks on sizes that the constructors of this room share."""

from __future__ import annotations


def positive(owner: str, **sizes: int) -> None:
    """Raise ValueError unless every size is an int >= 1; `owner` names the module in the message."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{owner}: {name} must be an integer >= 1, got {size!r}; pass a positive size.")
