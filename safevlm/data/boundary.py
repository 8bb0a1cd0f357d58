"""Turns whatever another library's parser raises on damaged bytes into an error of this library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safevlm.errors import SafeVLMError


@contextmanager
def parser_errors(explain: Callable[[Exception], SafeVLMError]) -> Iterator[None]:
    """Turn every exception but our own into the error that `explain` makes of it.

    For calls into other libraries' parsers (pyarrow, datasets, Pillow). On damaged files they raise whatever
    their code runs into, such as MemoryError, KeyError or RecursionError, and one file must not end the scan of
    the others. KeyboardInterrupt and SystemExit pass through. Put nothing else inside the block.

    Args:
        explain: takes the exception, returns the error to raise in its place.

    Raises:
        SafeVLMError: what `explain` returned, or the library's own error unchanged.
    """
    try:
        yield
    except SafeVLMError:
        raise
    except Exception as error:
        raise explain(error) from error
