"""Packing of dialogues into rows of one length.

The turns of a row that follow one image do not see each other: each is a branch that sees the
image and itself, at the positions that it would have alone. So one pass over the image's tokens
serves several independent dialogues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .dialogues import Turn
from .vocabulary import image_id

IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """Packed rows, all int64 (rows, length).

    `labels` are -100 outside answers; `branches` are 0 for a shared beginning, 1.. for branches
    that see it and themselves, -1 for padding.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    branches: Tensor

    def mask(self) -> Tensor:
        """Who sees whom, bool (rows, 1, length, length)."""
        length = self.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mine, other = self.branches[:, :, None], self.branches[:, None, :]
        seen = (mine == other) | ((other == 0) & (mine > 0))
        return (seen & causal)[:, None]


class Packer:
    """Turns dialogues into rows of `length` tokens; what does not fit is left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, length: int, patches: int) -> None:
        self._tokenizer, self.length = tokenizer, length
        self._encode = lru_cache(maxsize=1 << 17)(self._encode_fresh)  # most turns recur
        self._user, self._line = self._encode("USER:"), self._encode("\n")
        self._image = [image_id(tokenizer)] * patches
        self._eos = tokenizer.eos_token_id

    def image_row(self, turns: Sequence[Turn]) -> list[list[int]]:
        """A row that begins with an image and branches into the turns."""
        row = _Row(self.length)
        row.add([*self._user, *self._encode(" "), *self._image, *self._line], branch=0, answer_from=None)
        start = len(row.ids)
        for number, turn in enumerate(turns, start=1):
            row.add(*self._turn(turn, first=True), branch=number, position=start)
        return row.close()

    def chat_row(self, turns: Sequence[Turn]) -> list[list[int]]:
        """A row that holds one conversation about an image, in which later turns see earlier ones."""
        row = _Row(self.length)
        row.add([*self._user, *self._encode(" "), *self._image, *self._line], branch=0, answer_from=None)
        for number, turn in enumerate(turns):
            row.add(*self._turn(turn, first=number == 0), branch=0)
        return row.close()

    def text_row(self, turns: Sequence[Turn]) -> list[list[int]]:
        """A row of independent text dialogues."""
        row = _Row(self.length)
        for number, turn in enumerate(turns, start=1):
            row.add(*self._turn(turn, first=False), branch=number, position=0)
        return row.close()

    def batch(self, rows: Sequence[list[list[int]]]) -> Rows:
        """Rows as tensors."""
        return Rows(*(torch.tensor(column) for column in zip(*rows, strict=True)))

    def _encode_fresh(self, text: str) -> list[int]:
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def _turn(self, turn: Turn, *, first: bool) -> tuple[list[int], int]:
        head = "" if first else "USER: "
        question = self._encode(f"{head}{turn.question} ASSISTANT:")
        return [*question, *self._encode(f" {turn.answer}"), self._eos], len(question)


class _Row:
    def __init__(self, length: int) -> None:
        self._length = length
        self.ids: list[int] = []
        self._labels: list[int] = []
        self._positions: list[int] = []
        self._branches: list[int] = []

    def add(
        self, ids: list[int], answer_from: int | None, *, branch: int, position: int | None = None
    ) -> None:
        start = len(self.ids)
        if start + len(ids) > self._length:
            return
        first = start if position is None else position
        asked = len(ids) if answer_from is None else answer_from
        self.ids += ids
        self._labels += [IGNORED] * asked + ids[asked:]
        self._positions += range(first, first + len(ids))
        self._branches += [branch] * len(ids)

    def close(self) -> list[list[int]]:
        free = self._length - len(self.ids)
        return [self.ids + [0] * free, self._labels + [IGNORED] * free, self._positions + [0] * free,
                self._branches + [-1] * free]  # fmt: skip
