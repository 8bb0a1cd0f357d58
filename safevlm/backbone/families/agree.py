"""What processor and model must both know, such as the patch size: older processors' files leave it out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from safevlm.errors import BackboneError

LOGGER = logging.getLogger(__name__)


def agree(part: Any, values: Mapping[str, Any]) -> None:
    """Give a processor's attributes the values that the model's config has; a warning where they had others."""
    for key, value in values.items():
        had = getattr(part, key, None)
        if had != value:
            if had is not None:
                LOGGER.warning("%s.%s is %s, the model needs %s", type(part).__name__, key, had, value)
            setattr(part, key, value)


def agree_on_image_token(processor: Any, config: Any) -> None:
    """Give a processor the image token that the model's config has the id of; raises BackboneError where it is no token."""
    number, tokenizer = int(config.image_token_id), processor.tokenizer
    if tokenizer.convert_tokens_to_ids(processor.image_token) == number:
        return
    token = tokenizer.convert_ids_to_tokens(number) if number < len(tokenizer) else None
    if token is None or number not in tokenizer.added_tokens_decoder:
        raise BackboneError(
            f"the tokenizer has no image token with the id {number}, which the model's config names; its tokenizer.json "
            "is another model's, or lacks the token"
        )
    agree(processor, {"image_token": token, "image_token_id": number})
