"""Keeps users' text from becoming special tokens, also when it is split over parts, joined or normalised.

Looked at is the rendered prompt, in which the texts of a chat stand side by side as the tokenizer will see
them, and the ids that the tokenizer makes of it. A special token that touches a user's characters is
broken up by a space after its first character; those that the template wrote itself stay, and so does every other
character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

ROUNDS = 16
"""Rounds of breaking up; each can only bring up tokens that the earlier ones had covered."""

_SURROGATES = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """The text with the replacement character instead of lone surrogates, which no tokenizer takes."""
    return _SURROGATES.sub("\ufffd", text)


@dataclass(frozen=True)
class Specials:
    """What text must not become.

    Args:
        strings: special tokens as they are written.
        ids: their ids, without the one for unknown text.
    """

    strings: tuple[str, ...]
    ids: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any, *, strings: Iterable[str] = (), ids: Iterable[int] = ()) -> Specials:
        """A tokenizer's added tokens and named special ones, with further ones.

        Not among them are added tokens that are white space or, unless they are marked special, a single
        character: those are vocabulary of ordinary text.
        """
        named = set(tokenizer.all_special_tokens)
        found = dict.fromkeys(named, True) | {
            str(token): bool(token.special) or str(token) in named
            for token in tokenizer.added_tokens_decoder.values()
        }
        own = [token for token, special in found.items() if _is_control(token, special)]
        numbers = set(tokenizer.convert_tokens_to_ids(own)) | set(ids)
        vital = {tokenizer.bos_token_id, tokenizer.eos_token_id, *ids}
        if tokenizer.unk_token_id not in vital:
            numbers.discard(tokenizer.unk_token_id)
        written = {token for token in (*own, *strings) if len(token) > 1}
        return cls(tuple(sorted(written, key=lambda t: (-len(t), t))), frozenset(numbers - {None}))

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds the start of every special token, overlapping ones too."""
        return _pattern(self.strings)


def _is_control(token: str, special: bool) -> bool:
    return bool(token.replace("\u2581", " ").strip()) and (special or len(token) > 1)


@lru_cache(maxsize=8)
def _pattern(strings: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"(?=({'|'.join(map(re.escape, strings))}))" if strings else "(?!)")


def written_apart(text: str, specials: Specials) -> str:
    """A user's text with the special tokens that stand in it broken up; nothing is tokenised."""
    return literal(text, [0] * len(text), None, specials=specials)[0]


def take_literally(text: str, tokenizer: Any, *, specials: Specials | None = None) -> str:
    """A user's text that stands alone, with special tokens broken up and lone surrogates replaced.

    Raises:
        ValueError: a special token that cannot be broken up.
    """
    text = well_formed(text)
    return literal(text, [0] * len(text), tokenizer, specials=specials or Specials.of(tokenizer))[0]


def literal(
    text: str, owners: Sequence[int], tokenizer: Any, *, specials: Specials
) -> tuple[str, Sequence[int]]:
    """The text with special tokens that touch a user's characters broken up.

    Args:
        text: a rendered prompt, well formed.
        owners: of each character the number of the user's text that it is from; -1: the template's.
        tokenizer: what reads the text; None looks at special tokens as they are written alone.

    Returns:
        The text and the owners of its characters.

    Raises:
        ValueError: a special token that cannot be broken up, such as one of a single character.
    """
    for _ in range(ROUNDS):
        found = [
            (match.start(), match.end(1))
            for match in specials.pattern.finditer(text)
            if _touched(owners, match.start(), match.end(1))
        ]
        if not found and tokenizer is not None:
            found = _made(text, owners, tokenizer, ids=specials.ids)
        if not found:
            return text, owners
        forged = text[slice(*found[0])]
        text, owners = _cut(text, owners, sorted({start + 1 for start, _ in found}))
    raise ValueError(
        f"a text makes the special token {forged[:80]!r} of this tokenizer and cannot be read as ordinary "
        "characters; leave it out"
    )


def _touched(owners: Sequence[int], start: int, end: int) -> bool:
    return any(owner >= 0 for owner in owners[start:end])


def _made(text: str, owners: Sequence[int], tokenizer: Any, *, ids: frozenset[int]) -> list[tuple[int, int]]:
    """(start, end) of users' text that becomes a special token, for example by the tokenizer's normalisation."""
    if not _touched(owners, 0, len(owners)):
        return []
    if not tokenizer.is_fast:
        return _made_by_slow(text, owners, tokenizer, ids=ids)
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    found = []
    for number, (start, end) in zip(made["input_ids"], made["offset_mapping"], strict=True):
        if number in ids:
            while start < end and text[start].isspace():  # what a token takes along does not count
                start += 1
            while start < end and text[end - 1].isspace():
                end -= 1
            if _touched(owners, start, end):
                found.append((start, end))
    return found


def _made_by_slow(
    text: str, owners: Sequence[int], tokenizer: Any, *, ids: frozenset[int]
) -> list[tuple[int, int]]:
    """Without offsets: a whole text where it becomes a special token."""
    edges = [i for i in range(1, len(text)) if owners[i] != owners[i - 1]]
    return [
        (start, end)
        for start, end in pairwise([0, *edges, len(text)])
        if owners[start] >= 0 and ids & set(tokenizer(text[start:end], add_special_tokens=False)["input_ids"])
    ]


def _cut(text: str, owners: Sequence[int], positions: Sequence[int]) -> tuple[str, list[int]]:
    """A space at each of the positions; a user's text on either side owns it."""
    pieces, kept = [], list[int]()
    for start, end in pairwise([0, *positions, len(text)]):
        pieces.append(text[start:end])
        kept += owners[start:end]
        if end < len(text):
            kept.append(max(owners[end - 1], owners[end]))
    return " ".join(pieces), kept
