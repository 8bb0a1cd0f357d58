"""An answer piece by piece: generation in a thread of its own, which ends with its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Event, Thread

from safevlm.backbone import Backbone, stop_when, text_streamer
from safevlm.types import Action, SafeReply


def stream_reply(backbone: Backbone, generate: Callable[..., list[SafeReply]]) -> Iterator[str]:
    """Yield the pieces of one reply; a refusal comes as one piece.

    Args:
        generate: gives one reply; takes `streamer` and `stopping_criteria` as transformers does.

    Raises:
        What `generate` raises. Closing the iterator stops the generation and waits for it.
    """
    streamer, stop = text_streamer(backbone), Event()
    outcome: Future[SafeReply] = Future()

    def run() -> None:
        try:
            outcome.set_result(generate(streamer=streamer, stopping_criteria=[stop_when(stop)])[0])
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.set_exception(error)
        finally:
            streamer.on_finalized_text("", stream_end=True)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield from (piece for piece in streamer if piece)
        if outcome.result().action is Action.REFUSE:
            yield outcome.result().text
    finally:
        stop.set()
        thread.join()
