"""Where what another library's parser raises on hostile bytes becomes an error of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safevlm.errors import SafeVLMError


@contextmanager
def parser_errors(explain: Callable[[Exception], SafeVLMError]) -> Iterator[None]:
    """Turn every exception but our own into the error that `explain` makes of it.

    For calls into parsers of data sets (pyarrow, datasets and what they use). On mutated files they raise
    whatever their code runs into, MemoryError, KeyError and RecursionError among it, and one file must not end a
    scan of others. Keep what stands inside to such calls.
    """
    try:
        yield
    except SafeVLMError:
        raise
    except Exception as error:
        raise explain(error) from error
