"""An answer piece by piece: generation in a thread of its own, which ends with its reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from threading import Event, Thread
from typing import Any

from safevlm.backbone import AnswerStreamer, Backbone, stop_when
from safevlm.types import Action, RiskAssessment, SafeReply


class StreamedReply(Iterator[str]):
    """A reply on its way: iterate it for the pieces of its text, then read the rest of it.

    `text`, `assessment`, `action` and `hint` are those of `generate`'s reply. Each waits for the whole of it; pieces that
    were not yet iterated still are afterwards. Generation starts with the first piece that is asked for.

    Args:
        backbone: what answers.
        generate: gives one reply; takes `streamer` and `stopping_criteria` as transformers does.
        options: that `generate` is called with.

    Raises:
        What `generate` raises, in the iteration and where the reply is read.
    """

    def __init__(self, backbone: Backbone, generate: Callable[..., list[SafeReply]], **options: Any) -> None:
        self._outcome: Future[SafeReply] = Future()
        self._waiting: deque[str] = deque()
        self._pieces = _generated(backbone, generate, options, self._outcome)

    def __next__(self) -> str:
        return self._waiting.popleft() if self._waiting else next(self._pieces)

    def __repr__(self) -> str:
        if not self._outcome.done() or self._outcome.exception() is not None:
            return "StreamedReply(not whole)"
        return f"StreamedReply({self.text!r}, {self.assessment}, action={self.action.value!r})"

    def close(self) -> None:
        """Stop the generation and wait for it; the reply then ends where it was."""
        self._pieces.close()

    @property
    def reply(self) -> SafeReply:
        """The whole reply, as `generate` gives it."""
        self._waiting.extend(self._pieces)
        if not self._outcome.done():
            raise ValueError("the reply was closed before it began, so it has no text; call stream again")
        return self._outcome.result()

    @property
    def text(self) -> str:
        """The whole answer."""
        return self.reply.text

    @property
    def assessment(self) -> RiskAssessment | None:
        """The riskiest image's; None for text without an image, or without the guard."""
        return self.reply.assessment

    @property
    def action(self) -> Action:
        """What the policy did."""
        return self.reply.action

    @property
    def hint(self) -> str:
        """The hint that was put before the prompt; empty unless `action` is hint."""
        return self.reply.hint


def _generated(
    backbone: Backbone,
    generate: Callable[..., list[SafeReply]],
    options: dict[str, Any],
    outcome: Future[SafeReply],
) -> Generator[str, None, None]:
    """The pieces of a reply, which is put into `outcome` before the last of them; closing stops the generation."""
    streamer, stop = AnswerStreamer(backbone, options), Event()
    criteria = [*options.pop("stopping_criteria", ()), stop_when(stop)]

    def run() -> None:
        try:
            outcome.set_result(generate(streamer=streamer, stopping_criteria=criteria, **options)[0])
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.set_exception(error)
        finally:
            streamer.end()

    thread = Thread(target=run, daemon=True)
    thread.start()
    sent = ""
    try:
        for piece in streamer:
            sent += piece
            yield piece
        text = outcome.result().text
        if text != sent and text.startswith(sent):  # a refusal, of which nothing was generated
            yield text[len(sent) :]
    finally:
        stop.set()
        thread.join()
