"""Asks a target all probes, in batches, and keeps the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from safevlm.data import read_image
from safevlm.errors import ImageError
from safevlm.evals.replies import OnProgress

from .cache import AnswerCache, answer_key, image_digest
from .probes import Probe
from .targets import Answer, Target

MAX_NEW_TOKENS = 64


def ask(
    target: Target,
    probes: Sequence[Probe],
    *,
    cache: AnswerCache | None = None,
    version: str = "",
    batch_size: int = 16,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_progress: OnProgress | None = None,
) -> list[Answer]:
    """One answer per probe, in order. An image that cannot be read is not asked about; its answer is the reason.

    Args:
        target: who is asked.
        cache: answers of an earlier run, which are not asked for again; new ones are added batch by batch.
        version: of the target, where its name alone does not tell it apart from another one.
        batch_size: prompts per call.
        max_new_tokens: the answers' length at most.
        on_progress: called with the target's name, probes done and probes in all, before and after every batch.

    Raises:
        ValueError: no probes, batch_size or max_new_tokens < 1, or a target that gives another number of answers.
    """
    if not probes or batch_size < 1 or max_new_tokens < 1:
        raise ValueError(
            f"{len(probes)} questions, batch_size {batch_size}, max_new_tokens {max_new_tokens}; each must be at least 1"
        )
    answers: list[Answer | None] = [None] * len(probes)
    asked: list[tuple[int, str, Image.Image | None]] = []

    def report() -> None:
        if on_progress is not None:
            on_progress(target.name, sum(answer is not None for answer in answers), len(probes))

    def finish() -> None:
        found = target.answer(
            [image for *_, image in asked],
            [probes[row].prompt for row, *_ in asked],
            max_new_tokens=max_new_tokens,
        )
        if len(found) != len(asked):
            raise ValueError(
                f"{target.name}: {len(found)} answers to {len(asked)} prompts; a target gives one for each"
            )
        if cache is not None:
            cache.add(
                {
                    key: answer.text
                    for (_, key, _), answer in zip(asked, found, strict=True)
                    if not answer.failure
                }
            )
        for (row, *_), answer in zip(asked, found, strict=True):
            answers[row] = answer
        asked.clear()
        report()

    report()
    identity = f"{version or target.name}, {max_new_tokens} tokens"
    for row, (image, digest) in enumerate(_images(probes)):
        if isinstance(image, str):
            answers[row] = Answer("", image)
            continue
        key = answer_key(identity, probes[row].prompt, digest)
        kept = cache.get(key) if cache is not None else None
        if kept is not None:
            answers[row] = Answer(kept)
        else:
            asked.append((row, key, image))
        if len(asked) == batch_size:
            finish()
    if asked:
        finish()
    report()
    return [answer for answer in answers if answer is not None]


def _images(probes: Sequence[Probe]) -> Iterator[tuple[Image.Image | str | None, str]]:
    """The image of each probe and its digest, or why it cannot be read; one that several in a row show is decoded once."""
    last: object = None
    image: Image.Image | str | None = None
    digest = ""
    for probe in probes:
        if probe.source is not last:
            last = probe.source
            image, digest = _opened(probe.source)
        yield image, digest


def _opened(source: Image.Image | bytes | Path | None) -> tuple[Image.Image | str | None, str]:
    if source is None:
        return None, ""
    try:
        image = read_image(source)
    except ImageError as error:
        return str(error), ""
    return image, image_digest(image)
