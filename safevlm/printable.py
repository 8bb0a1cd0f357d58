"""Text from elsewhere (file names, ids, captions, answers, messages) as messages and terminals may show it."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\u200c\u200d")
"""Joiners: words of Persian and Indian languages, and many emoji, are spelled with them."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""Text without what a terminal obeys or what reorders and hides it: such characters become `\x1b`, `\u202e`.

    Args:
        text: any string, lone surrogates included.
        lines: whether line breaks and tabs stay, for text that may have several lines.
    """
    return "".join(
        c if _harmless(c) or (lines and c in "\n\t") else c.encode("unicode_escape").decode() for c in text
    )


def _harmless(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs" or character in _KEPT


def shortened(text: str, length: int = 200, *, quoted: bool = False) -> str:
    """Text from elsewhere as an error message names it: on one line and not long.

    Args:
        text: any string.
        length: characters that are kept; … stands for the others.
        quoted: whether it becomes an ASCII string literal in any case, not only where it is empty or has
            characters that do not print.
    """
    text = text if len(text) <= length else f"{text[:length]}…"
    return ascii(text) if quoted or not text or not text.isprintable() else text


def indented(text: str) -> str:
    """Printable text whose second and later lines are indented, so that none of them looks like one of ours."""
    first, *others = printable(text, lines=True).split("\n")
    return "\n".join([first, *(line if line.startswith((" ", "\t")) else f"  {line}" for line in others)])
