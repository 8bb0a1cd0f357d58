"""Rows that do not fit into the model's context: named before training begins."""

from __future__ import annotations

import logging
from collections.abc import Callable

from safevlm.backbone import PromptLengths, make_chat, with_hint
from safevlm.data import image_size
from safevlm.errors import DataError
from safevlm.guard import SafeVLM
from safevlm.labelled.table import SHOWN, LabelledRow

from .datamodule import SafetyDataModule

LOGGER = logging.getLogger(__name__)


def check_lengths(
    data: SafetyDataModule, guard: SafeVLM, *, hint: Callable[[LabelledRow], str], only_answered: bool
) -> None:
    """Refuse rows whose prompt, images, safety tokens and answer are longer than the context, or drop them.

    Args:
        data: has read its tables; with `skip_bad` the rows are logged and dropped from it.
        guard: the model that the rows go through.
        hint: what may be put before a row's prompt; empty for nothing.
        only_answered: whether rows without an answer do not go through the language model.

    Raises:
        DataError: rows that are too long (file, row and lengths of each), or none or none with a label is left.
    """
    lengths = PromptLengths(guard.backbone, safety_tokens=guard.config.num_tokens)
    limit, bad = guard.backbone.context_length, dict[str, str]()
    for row in data.rows:
        if row.response.strip() or not only_answered:
            reason = _reason(row, lengths, limit=limit, hint=hint(row))
            if reason:
                bad[row.where] = f"{row.where}: {reason}"
    if not bad:
        return
    for line in bad.values():
        LOGGER.warning("bad row: %s", line)
    shown = "\n  ".join([*list(bad.values())[:SHOWN], *["..."][: len(bad) > SHOWN]])
    if not data.skip_bad:
        raise DataError(
            f"{len(bad)} of {len(data.rows)} rows are longer than the model's context; shorten them, or drop "
            f"them with skip_bad (--data.skip_bad true):\n  {shown}"
        )
    if all(row.where in bad for row in data.train_rows):
        raise DataError(f"{data.table}: every training row is longer than the model's context:\n  {shown}")
    data.drop(bad)
    LOGGER.warning("dropped %d rows that are longer than the model's context", len(bad))


def _reason(row: LabelledRow, lengths: PromptLengths, *, limit: int, hint: str) -> str:
    """Why a row cannot be trained on; empty where it can."""
    one_length = lengths.backbone.family.one_length
    try:
        sizes = [] if row.image is None else [(64, 64) if one_length else image_size(row.image)]
        images = sum(lengths.image_tokens(size) for size in sizes)
        bound = lengths.at_most([hint, row.prompt, row.response], images)
        if bound is not None and bound <= limit:
            return ""
        chat = make_chat(row.prompt, len(sizes))
        prompt, answer = lengths(with_hint(chat, hint) if hint else chat, sizes, row.response)
    except ValueError as error:
        return str(error)
    if prompt + answer <= limit:
        return ""
    return (
        f"has {prompt + answer} tokens (prompt {prompt - images}, image {images}, response {answer}), the "
        f"model takes {limit}"
    )
