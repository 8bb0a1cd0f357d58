"""Directions with random rows, methods of every kind, and what a tiny model's layers put out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from safevlm.backbone import Backbone
from safevlm.steering import (
    CMRM,
    Astra,
    Batch,
    Direction,
    LayerVectors,
    MeanDifference,
    Method,
    Projection,
    VLMGuard,
    last_states,
)
from safevlm.steering.batch import hidden
from tests.families import IMAGES, PROMPTS

GREEDY = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [3]}
"""The image token is kept out: without a cache it would be read as one more image."""

METHODS = ("vlm_guard", "raw", "projection", "cmrm", "cmrm_sample", "astra", "mean_difference")


def orthonormal(rank: int, width: int, seed: int) -> Tensor:
    """(rank, width) float32 orthonormal rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, rank, generator=generator))[0].T.contiguous()


def direction_of(
    backbone: Backbone, axis: str = "harmful_query", *, rank: int = 4, seed: int = 0
) -> Direction:
    """A direction that fits a backbone: random rows at every layer, turned so that the tests' prompts look harmful."""
    layers = range(len(backbone.decoder_layers))
    rows = {layer: orthonormal(rank, backbone.text_dim, seed + layer) for layer in layers}
    for layer, states in enumerate(last_states(backbone, PROMPTS)):
        rows[layer] *= (states @ rows[layer][0]).mean().sign()
    return Direction(
        rows=rows,
        singular_values={layer: torch.arange(rank, 0, -1).float() for layer in layers},
        axis=axis,
        model_type=backbone.model_type,
        fingerprint=backbone.language_fingerprint,
        pairs_sha256="0" * 64,
        layers=tuple(layers),
        separation=dict.fromkeys(layers, 1.0),
    )


def method_of(name: str, backbone: Backbone, **options) -> Method:
    """A method by name, strong enough to change answers."""
    harmful, jailbroken = direction_of(backbone), direction_of(backbone, "jailbroken_behaviour")
    layers = range(len(backbone.decoder_layers))
    vectors = LayerVectors(
        {layer: 3 * orthonormal(1, backbone.text_dim, 7 + layer)[0] for layer in layers},
        backbone.language_fingerprint,
    )
    if name == "vlm_guard":
        return VLMGuard(harmful, **{"alpha": 3.0, **options})
    if name == "raw":
        return VLMGuard(harmful, base="raw", **{"alpha": 3.0, **options})
    if name == "projection":
        return Projection(harmful, **options)
    if name == "cmrm":
        return CMRM(vectors, **options)
    if name == "cmrm_sample":
        return CMRM(**options)
    if name == "astra":
        centre = LayerVectors({n: v / 100 for n, v in vectors.values.items()}, vectors.fingerprint)
        return Astra(jailbroken, centre, **{"layers": "all", "strength": 3.0, **options})
    return MeanDifference(vectors, dict.fromkeys(layers, -1e9), **options)  # open gates


def images_of() -> list[list]:
    """The tests' images, one list per prompt."""
    return [entry if isinstance(entry, list) else [entry] for entry in IMAGES]


def batch_of(backbone: Backbone, rows: list[int] | None = None) -> Batch:
    """The tests' prompts with their images, or some of them."""
    chosen = range(len(PROMPTS)) if rows is None else rows
    return Batch.encode(backbone, [PROMPTS[row] for row in chosen], [images_of()[row] for row in chosen])


def logits(backbone: Backbone, batch: Batch) -> Tensor:
    """(B, vocabulary) of the prompts' last tokens."""
    with torch.no_grad():
        found: Tensor = backbone.model(**backbone.on_device(batch.inputs.tensors)).logits[:, -1]
    return found


def generated(backbone: Backbone, batch: Batch, **options) -> Tensor:
    """The tokens behind the prompts."""
    made = backbone.model.generate(**backbone.on_device(batch.inputs.tensors), **{**GREEDY, **options})
    return made[:, batch.inputs.tensors["input_ids"].shape[1] :]


def hooks_on(backbone: Backbone) -> int:
    """How many forward hooks there are, on any module."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in backbone.model.modules())


@contextmanager
def recorded(backbone: Backbone) -> Iterator[list[list[Tensor]]]:
    """Each decoder layer's states (R, L, d), one tensor a run, after the hooks that are on it by now."""
    layers = backbone.decoder_layers
    found: list[list[Tensor]] = [[] for _ in layers]

    def taking(own: list[Tensor]):
        def take(_: nn.Module, __, output) -> None:
            own.append(hidden(output).detach().clone())

        return take

    handles = [layer.register_forward_hook(taking(own)) for layer, own in zip(layers, found, strict=True)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
