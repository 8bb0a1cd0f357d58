"""Standard streams that take any text, and that may be closed."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast

from safevlm.printable import printable


class Output:
    """Standard output or error. Characters that its encoding lacks are escaped; writing to it never raises.

    Once it cannot be written to (`| head` has ended, the disk is full), the rest is dropped and `failure`
    has the reason, so that a command still does its work to the end.

    Args:
        stream: of the process.
        plain: escape what terminals obey, too: for a stream on which nothing moves the cursor.
    """

    def __init__(self, stream: TextIO, *, plain: bool = False) -> None:
        cast(Any, stream).reconfigure(errors="backslashreplace")
        self.failure: OSError | None = None
        self._stream, self._plain = stream, plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; returns its length."""
        given = len(text)
        if self._plain:  # progress bars return to the start of their line
            text = "\r".join(printable(part, lines=True) for part in text.split("\r"))
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return given

    def flush(self) -> None:
        """Pass on what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Let the rest go nowhere, what is buffered included."""
        self.failure = self.failure or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def prepare() -> None:
    """Put the process's standard streams in order, before anything is read or written."""
    # closed ones (`<&-`) are opened first and in this order: the next files would get their numbers
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")
    if sys.stdout is None:  # opened for reading, so that writing to it fails and is told
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    cast(Any, sys.stdin).reconfigure(errors="replace")
    sys.stdout = cast(TextIO, Output(sys.stdout))
    sys.stderr = cast(TextIO, Output(sys.stderr, plain=True))


def finish(code: int) -> int:
    """Flush both; the exit code, which is not 0 where output was lost."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None:
        print(f"error: not all output could be written ({failure.strerror})", file=sys.stderr)
        code = code or 1
    sys.stderr.flush()
    return code
