"""Compares ids as data sets write them: 1, "1" and 1.0 are the same id."""

from __future__ import annotations

from typing import Any

EXACT = 2.0**53
"""Up to here a float is the whole number that was written; a larger one may stand for several."""


def id_of(value: Any) -> str | None:
    """An id as text; None for values that are no id: None, "", booleans, NaN, infinity, lists and objects.

    Text stays as it is ("01" is not 1). A float that is a whole number is that number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    if isinstance(value, float):
        if value != value or abs(value) == float("inf"):
            return None
        return str(int(value)) if value.is_integer() and abs(value) <= EXACT else repr(value)
    return str(value)
