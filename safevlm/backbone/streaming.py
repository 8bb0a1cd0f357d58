"""An answer while it is generated: its text piece by piece, and how to stop it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from threading import Event
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from .answers import answer_texts
from .load_backbone import Backbone

_UNSETTLED = "\ufffd" + "".join(map(chr, range(0x21, 0x7F)))
"""What may change at a text's end as tokens follow: part of a character, and a word that is not yet whole."""


class AnswerStreamer(BaseStreamer):
    """Iterates over the pieces of one answer while `generate` runs in another thread, until `end`.

    A piece is the text of all tokens so far behind the pieces before it, without what the next tokens may change; so the
    pieces make up the text that `answer_texts` makes of the whole answer, stripped.

    Args:
        backbone: whose answer it is.
        generation_kwargs: of `generate`.
    """

    skip_prompt = True

    def __init__(self, backbone: Backbone, generation_kwargs: Mapping[str, Any]) -> None:
        self.next_tokens_are_prompt = True
        self._backbone, self._kwargs = backbone, generation_kwargs
        self._ids: list[int] = []
        self._text = self._sent = ""
        self._pieces: SimpleQueue[str | None] = SimpleQueue()

    def put(self, value: Tensor) -> None:
        """Take the prompt's tokens, then those of the answer."""
        if value.ndim > 1 and len(value) > 1:
            raise ValueError(f"a streamed answer is to one prompt, {len(value)} were given; use `generate`")
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self._ids += value.reshape(-1).tolist()
        (text,) = answer_texts(self._backbone, torch.tensor([self._ids]), self._kwargs)
        self._text = text.strip()
        self._send(self._text.rstrip(_UNSETTLED).rstrip())

    def end(self) -> None:
        """Give what is left, and let the iteration end."""
        self._send(self._text)
        self._pieces.put(None)

    def _send(self, text: str) -> None:
        if text != self._sent and text.startswith(self._sent):
            self._pieces.put(text[len(self._sent) :])
            self._sent = text

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces.get, None)


def restart_streamer(streamer: Any) -> None:
    """Before a second try at an answer of which nothing came: a streamer that skips prompts skips the next one, too."""
    if getattr(streamer, "skip_prompt", False):
        streamer.next_tokens_are_prompt = True


class _StopWhen(StoppingCriteria):
    def __init__(self, event: Event) -> None:
        self.event = event

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def stop_when(event: Event) -> StoppingCriteria:
    """A stopping criterion that ends the generation at the first token after `event` is set."""
    return _StopWhen(event)
