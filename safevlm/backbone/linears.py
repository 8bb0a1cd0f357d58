"""The linear layers of a language model: what LoRA may adapt."""

from __future__ import annotations

from typing import Any

from torch import nn


def language_linears(model: Any) -> dict[str, nn.Linear]:
    """The linear layers of a model's decoder, by their names in `model`; not its output layer.

    Args:
        model: a Hugging Face image-text-to-text model without LoRA layers.
    """
    decoder, output = model.get_decoder(), model.get_output_embeddings()
    inside = {id(part) for part in decoder.modules() if isinstance(part, nn.Linear) and part is not output}
    return {name: part for name, part in model.named_modules() if id(part) in inside}
