"""Confines what a parser or decoder raises to the file that it reads."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from safevlm.data.boundary import parser_errors
from safevlm.errors import DataError

logger = logging.getLogger(__name__)

MAX_REASON = 300
"""Characters of a foreign exception's message that are kept; some hold the whole input."""


def contained(name: str) -> AbstractContextManager[None]:
    """Turn every exception of a parser or decoder into a DataError; the traceback goes to the log at debug level.

    Put it around what reads a file's bytes, never around the model: an exception there is not the file's
    fault. The library's own errors, KeyboardInterrupt and SystemExit pass through.

    Args:
        name: of the file, shard or image, for the message.

    Raises:
        DataError: names the file and the exception.
    """

    def explain(error: Exception) -> DataError:
        logger.debug("%s", name, exc_info=error)
        said = str(error)
        cut = said if len(said) <= MAX_REASON else f"{said[:MAX_REASON]} ..."
        return DataError(
            f"{name}: cannot be read ({type(error).__name__}{cut and f': {cut}'}); check the file, or save it again"
        )

    return parser_errors(explain)
