"""The library's errors. Each message carries the cause, the context and the remedy."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 80, 80


def brief(value: object) -> str:
    """The `repr` of a value for a message: at most two levels deep and a few items of each, however large it is."""
    return _BRIEF.repr(value)


class SafeVLMError(Exception):
    """Base of every error that the library raises on its own account."""


class CheckpointError(SafeVLMError):
    """A checkpoint that cannot be loaded: names the file, the key and the remedy."""


class BackboneError(SafeVLMError):
    """A backbone that is unknown, unreachable, or does not fit the safety modules."""


class ImageError(SafeVLMError):
    """Bytes that are not an image the library reads. The message is `name: reason; remedy`.

    Args:
        name: the file or item, as messages show it.
        reason: what is wrong with it.
        remedy: what to do about it; empty where the reason says it.
    """

    def __init__(self, name: str, reason: str, remedy: str = "") -> None:
        super().__init__(name, reason, remedy)  # args that pickle can pass on
        self.name, self.reason, self.remedy = name, reason, remedy

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}" + (f"; {self.remedy}" if self.remedy else "")


class DataError(SafeVLMError):
    """A dataset row or file that cannot be used: names file, row and column."""


class EndpointError(SafeVLMError):
    """A server that does not answer, or not in the form of the chat API: names the address and the cause."""


class TrainingError(SafeVLMError):
    """A run that cannot go on, or that would train nothing: names the step or the option, and the remedy."""


class TrainingInterrupted(KeyboardInterrupt):
    """A run that Ctrl-C or SIGTERM ended; the message says how to go on.

    Args:
        message: what was kept, and the remedy.
        signum: the signal's number.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class UndecidedGateError(SafeVLMError):
    """Steering that cannot tell whether some prompts are harmful, as a number is not finite.

    Args:
        rows: of the batch, ascending.
        what: that is not finite.
    """

    def __init__(self, rows: Sequence[int], what: str) -> None:
        super().__init__(rows, what)  # args that pickle can pass on
        self.rows, self.what = tuple(rows), what

    def __str__(self) -> str:
        return (
            f"steering: {self.what} are not finite for prompts {brief(list(self.rows))}; check the weights, or load "
            "the model with dtype float32 or bfloat16"
        )


class MissingExtraError(SafeVLMError, ImportError):
    """An optional package is not installed; the message has the install command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)  # args that pickle can pass on
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return (
            f"this feature needs the package {self.package!r}, which is not installed; "
            f"run: pip install 'safevlm[{self.extra}]'"
        )
