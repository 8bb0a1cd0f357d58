"""States of an LLM at the last token of its prompts, as it has them when it begins to answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from safevlm.backbone import Backbone, Inputs, encode, injected, make_chat
from safevlm.errors import BackboneError

from .batch import hidden
from .hooks import unsteered

ONE_PREFILL = {"max_new_tokens": 1, "do_sample": False, "num_beams": 1}


@torch.no_grad()
def last_states(
    backbone: Backbone, prompts: Sequence[str], *, image: Image.Image | None = None, batch_size: int = 8
) -> Tensor:
    """The states of each prompt's last token at the output of every decoder layer.

    The prompts go through the backbone's chat template with the generation prompt, so the last token is the one
    before the answer. One forward pass a batch, the prefill of the model's own `generate`, so padding and positions
    are those of an answer.

    Args:
        prompts: at least one; texts alone, taken literally.
        image: RGB, put before each prompt; None: text alone.

    Returns:
        (layers, prompts, d) float32 on the CPU.

    Raises:
        BackboneError: the decoder has no list of layers, or a layer does not run once in a forward pass.
        ValueError: a prompt longer than the context, no prompt, or a batch size below 1.
    """
    if not prompts or batch_size < 1:
        raise ValueError(f"{len(prompts)} prompts in batches of {batch_size}; give at least one of each")
    batches = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    own = [] if image is None else [image]
    parts = []
    for batch in batches:
        chats = [make_chat(prompt, len(own)) for prompt in batch]
        inputs = encode(backbone, chats, own * len(batch), safety_tokens=0)
        parts.append(prefill_states(backbone, inputs).cpu())
    return torch.cat(parts, dim=1)


@torch.no_grad()
def prefill_states(backbone: Backbone, inputs: Inputs) -> Tensor:
    """One forward pass over a batch, without steering: (layers, B, d) float32, on the first layer's device.

    Raises:
        BackboneError: the decoder has no list of layers, or a layer does not run once in a forward pass.
    """
    with (
        injected(backbone, inputs, tokens=None, passed=None),
        unsteered(),
        _recorded(backbone.decoder_layers) as found,
    ):
        backbone.model.generate(**backbone.on_device(inputs.tensors), **ONE_PREFILL)
    if any(len(states) != 1 for states in found):
        raise BackboneError(
            f"{backbone.name}: its decoder layers ran {[len(states) for states in found]} times in one forward pass, "
            "not once each; directions cannot be fitted on it"
        )
    return torch.stack([states[0].to(found[0][0].device) for states in found])


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Within the context each layer's outputs at the last position are kept, (B, d) float32, layer by layer."""
    found: list[list[Tensor]] = [[] for _ in layers]

    def keep(number: int, output: Any) -> None:
        found[number].append(hidden(output)[:, -1].float())

    handles = []
    try:
        for number, layer in enumerate(layers):
            handles.append(
                layer.register_forward_hook(lambda _, __, output, number=number: keep(number, output))
            )
        yield found
    finally:
        for handle in handles:
            handle.remove()
