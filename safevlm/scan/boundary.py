"""Where a file's damage ends: whatever its parser raises is an error of that file, and of nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from safevlm.errors import DataError, SafeVLMError

logger = logging.getLogger(__name__)

MAX_REASON = 300
"""Characters of a foreign exception's message that are kept; some hold the whole input."""


@contextmanager
def contained(name: str) -> Iterator[None]:
    """Turn every exception of a parser or decoder into a DataError; the traceback goes to the log at debug level.

    It stands around what reads a file's bytes, never around the model: what goes wrong there is no
    fault of the file. The library's own errors, Ctrl-C and the process's end pass through.

    Args:
        name: of the file, shard or image, for the message.

    Raises:
        DataError: names the file and the exception.
    """
    try:
        yield
    except SafeVLMError:
        raise
    except Exception as error:  # hostile files make parsers raise anything, asserts included
        logger.debug("%s", name, exc_info=True)
        said = str(error)
        cut = said if len(said) <= MAX_REASON else f"{said[:MAX_REASON]} ..."
        raise DataError(
            f"{name}: cannot be read ({type(error).__name__}{cut and f': {cut}'}); check the file, or save it again"
        ) from error
