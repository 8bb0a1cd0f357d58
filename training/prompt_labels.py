"""Rows whose label rests on their prompt: those of an image that other rows label differently."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from safevlm.labelled import LabelledRow
from safevlm.types import IGNORED


def judged_by_prompt(rows: Iterable[LabelledRow]) -> frozenset[str]:
    """Keys of the images whose rows have different levels.

    A harmful request beside a harmless image makes a risky row. Its level is none of the image alone, which
    another row with the same image and a harmless prompt, or with none, tells.
    """
    levels = defaultdict[str, set[int]](set)
    for row in rows:
        if row.key and row.level != IGNORED:
            levels[row.key].add(row.level)
    return frozenset(key for key, found in levels.items() if len(found) > 1)
