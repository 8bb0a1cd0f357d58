"""Processors of real checkpoints: what older or edited files leave out is filled in from the model's config.

Nothing is written: the objects in memory are completed, the files stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from safevlm.errors import BackboneError

from .families import Family
from .hub import HubOptions, explain

LOGGER = logging.getLogger(__name__)


def load_processor(name: str | Path, hub: HubOptions) -> Any:
    """The processor of a hub id or folder; raises BackboneError where there is none, or its files lack a part."""
    with explain(name):
        try:
            processor = AutoProcessor.from_pretrained(name, **vars(hub))
        except (AttributeError, KeyError, TypeError) as error:
            raise BackboneError(
                f"cannot make the processor of {str(name)!r} ({error}); its tokenizer_config.json or "
                "processor_config.json lacks an entry. Compare them with the model's published files"
            ) from error
    return check_parts(processor, name)


def check_parts(processor: Any, name: str | Path) -> Any:
    """The processor; raises BackboneError where it is a tokenizer or an image processor alone."""
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise BackboneError(
                f"the processor of {str(name)!r} is a {type(processor).__name__} without {part}; add the model's "
                "processor_config.json or preprocessor_config.json and its tokenizer's files"
            )
    return processor


def complete(model: Any, processor: Any, family: Family, *, name: str) -> None:
    """Fill in what the processor, its tokenizer or the generation config lack, in memory.

    Raises:
        BackboneError: a missing entry that the config does not have either, and the remedy.
    """
    tokenizer, text = processor.tokenizer, model.config.get_text_config()
    sources = (model.generation_config, text, model.config)
    template = str(processor.chat_template or getattr(tokenizer, "chat_template", None) or "")
    if family.needs_bos or "bos_token" in template:
        _fill_token(tokenizer, "bos", sources)
    if family.needs_bos and tokenizer.bos_token is None:
        raise BackboneError(_MISSING.format(name=name, kind="bos", what="begins every prompt"))
    _fill_token(tokenizer, "eos", sources)
    if tokenizer.eos_token is None:
        raise BackboneError(_MISSING.format(name=name, kind="eos", what="ends answers"))
    _fill_token(tokenizer, "pad", sources)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _complete_generation(model, tokenizer, name=name)
    family.complete(processor, model.config)


_MISSING = (
    "{name}: neither the tokenizer nor the model's config names a {kind} token, which {what}; set `{kind}_token` in "
    "tokenizer_config.json"
)


def _fill_token(tokenizer: Any, kind: str, sources: Iterable[Any]) -> None:
    """Name a special token that the tokenizer does not, by the id that a config has for it."""
    if getattr(tokenizer, f"{kind}_token") is not None:
        return
    for source in sources:
        for number in _ids(getattr(source, f"{kind}_token_id", None)):
            if 0 <= number < len(tokenizer):
                setattr(tokenizer, f"{kind}_token", tokenizer.convert_ids_to_tokens(number))
                return


def _ids(value: Any) -> list[int]:
    """One id, several or none, as a list of what are whole numbers."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [number for number in values if type(number) is int]


def _complete_generation(model: Any, tokenizer: Any, *, name: str) -> None:
    """What ends and pads generation, where the model's files do not say or say what is no token."""
    config, rows = model.generation_config, len(model.get_input_embeddings().weight)
    ends = [number for number in _ids(config.eos_token_id) if 0 <= number < rows]
    if len(ends) < len(_ids(config.eos_token_id)):
        LOGGER.warning("%s: eos_token_id %s of its generation config is no token", name, config.eos_token_id)
    if ends != _ids(config.eos_token_id) or not ends:
        config.eos_token_id = ends or int(tokenizer.eos_token_id)
    if not any(0 <= number < rows for number in _ids(config.pad_token_id)):
        config.pad_token_id = int(tokenizer.pad_token_id)
