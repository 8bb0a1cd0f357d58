"""Writing in images: which images are read, and which questions the words are to the safety head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, get_args

from PIL import Image

from safevlm.config import Reading, SafetyConfig
from safevlm.data.boundary import parser_errors
from safevlm.errors import CheckpointError, SafeVLMError
from safevlm.reader import Reader
from safevlm.types import ReadText, Risk

OpenImage: TypeAlias = Callable[[int], Image.Image]
"""The number of an image in its batch -> the image, RGB; called for those alone that are read."""
Prompts: TypeAlias = "Sequence[str] | None"
"""One per image, "" for the image alone; None: every image alone."""

MAX_TEXT = 400
"""Characters of what was read that the head is asked about and that are kept: more than a notice in an image has,
and a bound on what a page full of words costs. Longer texts excuse nothing: their rest is not judged."""


class TextReader(Protocol):
    """What reads: `safevlm.reader.Reader`, or another one with its method."""

    def read(self, image: Image.Image) -> str:
        """The text in an RGB image, "" where none is found; any exception means that it could not be read."""
        ...


@dataclass(frozen=True)
class Writing:
    """What was read in an image.

    Args:
        text: on one line, at most `MAX_TEXT` characters; "" where nothing was found, None where nothing was read.
        cut: whether there was more.
        reason: why it could not be read; empty where it was, or was not to be.
    """

    text: str | None = None
    reason: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Lettering:
    """Decides which images are read, and reads them.

    Args:
        reader: what reads.
        reading: the category and the least P(category) of images that are worth reading; None: not known.
        always: read every image, whatever its risk.
    """

    reader: TextReader
    reading: Reading | None
    always: bool = False

    def worth_reading(self, views: Sequence[Risk]) -> bool:
        """Whether an image is read, by the risks of its views without a prompt."""
        if self.always or self.reading is None:
            return self.always
        found = (view.category_probabilities.get(self.reading.category, 0.0) for view in views)
        return max(found) >= self.reading.threshold

    def writings(self, views: Sequence[Sequence[Risk]], images: OpenImage | None) -> list[Writing]:
        """What is written in each image that is worth reading, by its views' risks without a prompt.

        Raises:
            ValueError: there are no images to read.
        """
        if images is None:
            raise ValueError("writing is to be read, and there are no images to read it in; give `images`")
        return [
            self.read(partial(images, number)) if self.worth_reading(risks) else Writing()
            for number, risks in enumerate(views)
        ]

    def read(self, image: Callable[[], Image.Image]) -> Writing:
        """The writing in an image; the reason where opening or reading it fails, however it does."""
        try:
            with parser_errors(_explained):
                text = self.reader.read(image())
        except SafeVLMError as error:
            return Writing(reason=f"writing in the image could not be read: {error}")
        line = " ".join(text.split())
        return Writing(line[:MAX_TEXT], cut=len(line) > MAX_TEXT)


def _explained(error: Exception) -> SafeVLMError:
    return SafeVLMError(f"{type(error).__name__}: {str(error)[:MAX_TEXT]}")


def open_lettering(
    read_text: ReadText, config: SafetyConfig, reader: TextReader | None = None
) -> Lettering | None:
    """What reads for modules of this config; None where nothing is read.

    Args:
        read_text: "auto": images whose P(`config.reading.category`) reaches its threshold; "always": all images.
        reader: None: `Reader`.

    Raises:
        ValueError: no such `read_text`.
        CheckpointError: the modules read no prompts, or "auto" and the config says of no image that it is worth reading.
        MissingExtraError: the reader is not installed.
    """
    if read_text not in get_args(ReadText):
        raise ValueError(f"read_text is {read_text!r}; choose one of {', '.join(get_args(ReadText))}")
    if read_text == "never":
        return None
    if not config.reads_prompts:
        raise CheckpointError(
            f"read_text {read_text!r}: what is read goes where a prompt goes, and these modules were attached to a "
            'vision tower alone and read no prompts; use read_text "never", or modules of a model with an LLM'
        )
    if read_text == "auto" and config.reading is None:
        raise CheckpointError(
            "read_text 'auto': the checkpoint does not say which images are worth reading (`reading` in its "
            'config); use read_text "always"'
        )
    return Lettering(reader or Reader(), config.reading, always=read_text == "always")


def questions(writings: Sequence[Writing], asked: Sequence[Prompts]) -> Iterator[dict[int, str]]:
    """What the head is asked because of what was read: image -> prompt, for the images with words.

    The words alone first, then after each prompt that was asked with the image; what is read never stands in
    a prompt's place.
    """
    words = {image: writing.text for image, writing in enumerate(writings) if writing.text}
    if words:
        yield words
    for prompts in asked:
        after = {n: f"{prompts[n]}\n{text}" for n, text in words.items() if prompts and prompts[n]}
        if after:
            yield after
