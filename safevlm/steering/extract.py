"""Paired prompts -> a direction: SVD of the differences of their states, and how well each layer separates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from safevlm.backbone import Backbone, PromptLengths, make_chat
from safevlm.labelled import PromptPairs
from safevlm.printable import shortened

from .direction import Axis, Direction
from .states import last_states

RANK = 4
"""m, an open point of VLM-Guard (arXiv 2502.10486), which does not state it."""

HELD_OUT = 0.25
"""Share of the pairs, rounded up, that separation is measured on; the others are fitted on."""

BLANK = (336, 336)
"""Size in pixels of the blank image, as LLaVA-1.5 sees images (arXiv 2310.03744)."""


@dataclass(frozen=True)
class Fitted:
    """A direction and what was found while fitting it.

    Args:
        direction: fitted on text alone.
        with_image: layer -> separation, in [0, 1], of the same held-out pairs with a blank image before each prompt.
        pairs: number of pairs that were fitted on.
        held_out: number of pairs that separation was measured on.
    """

    direction: Direction
    with_image: Mapping[int, float]
    pairs: int
    held_out: int


def fit_direction(
    backbone: Backbone,
    pairs: PromptPairs,
    *,
    axis: Axis = "harmful_query",
    rank: int = RANK,
    seed: int = 0,
    batch_size: int = 8,
) -> Fitted:
    """Fit a direction on the text side of a backbone's LLM, as VLM-Guard does (arXiv 2502.10486, section 3).

    Args:
        pairs: at least `rank` pairs besides the held-out ones.
        axis: what the pairs differ in.
        rank: m, rows of each layer.
        seed: of the choice of held-out pairs.
        batch_size: prompts in a forward pass.

    Raises:
        BackboneError: the decoder's layers cannot be read.
        ValueError: too few pairs for the rank, a prompt longer than the context, states that are not finite, or a
            layer in which the prompts of pairs do not differ in `rank` directions.
    """
    count = math.ceil(len(pairs) * HELD_OUT)
    if not 1 <= rank <= min(len(pairs) - count, backbone.text_dim):
        raise ValueError(
            f"rank {rank} with {len(pairs)} pairs, {count} of them held out, and a width of {backbone.text_dim}; it is "
            "at least 1 and at most the other pairs and the width: give more pairs, or a lower --rank"
        )
    fitted, held_out = pairs.split(count, seed=seed)
    blank = Image.new("RGB", BLANK, "white")
    _check_lengths(backbone, fitted, image=None)
    _check_lengths(backbone, held_out, image=blank)
    harmful, harmless = _states(backbone, fitted, image=None, batch_size=batch_size)
    bases = [
        principal_rows(states, rank=rank, layer=layer) for layer, states in enumerate(harmful - harmless)
    ]
    rows = {layer: basis[0] for layer, basis in enumerate(bases)}
    separation, with_image = (
        separations(*_states(backbone, held_out, image=image, batch_size=batch_size), rows)
        for image in (None, blank)
    )
    direction = Direction(
        rows=rows,
        singular_values={layer: basis[1] for layer, basis in enumerate(bases)},
        axis=axis,
        model_type=backbone.model_type,
        fingerprint=backbone.language_fingerprint,
        pairs_sha256=pairs.sha256,
        layers=choose_layers(separation),
        separation=separation,
    )
    return Fitted(direction, with_image, len(fitted), len(held_out))


def principal_rows(differences: Tensor, *, rank: int, layer: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of differences harmful - harmless, without centring, in float64.

    SVD leaves each vector's sign open; here the differences' mean along it is not negative, so that positive along
    the first one is harmful.

    Args:
        differences: (pairs, d) float.
        rank: how many.
        layer: for messages.

    Returns:
        Rows (rank, d) and singular values (rank,), float32.

    Raises:
        ValueError: the differences have a lower rank, or their mean is 0 along the first vector.
    """
    matrix = differences.double()
    _, values, vectors = torch.linalg.svd(matrix, full_matrices=False)
    least = float(values[0]) * max(matrix.shape) * torch.finfo(torch.float32).eps
    if not float(values[rank - 1]) > least:
        raise ValueError(
            f"layer {layer}: the states of the pairs differ in {int((values > least).sum())} directions, fewer than "
            f"the rank of {rank}; give more, or more different, pairs, or a lower --rank"
        )
    if not abs(float(matrix.mean(0) @ vectors[0])) * len(matrix) > least:
        raise ValueError(
            f"layer {layer}: along the main direction harmful and harmless prompts have the same mean; check which "
            "prompts of the pairs are the harmful ones"
        )
    return oriented(vectors[:rank], matrix).float().contiguous(), values[:rank].float()


def oriented(vectors: Tensor, differences: Tensor) -> Tensor:
    """Vectors (m, d) with the sign that makes the mean of the differences (pairs, d) along each positive."""
    negative = differences.mean(0) @ vectors.T < 0
    return torch.where(negative[:, None], -vectors, vectors)


def auroc(positive: Tensor, negative: Tensor) -> float:
    """P(a positive > a negative), ties one half: the Mann-Whitney statistic over the number of pairs of scores."""
    above, equal = positive[:, None] > negative, positive[:, None] == negative
    return float((above.double() + equal.double() / 2).mean())


def choose_layers(separation: Mapping[int, float]) -> tuple[int, ...]:
    """The third of the layers that separates best, ascending, at least one.

    Among equals those nearest to the middle of the decoder are taken, so where all separate alike it is the middle
    third, the default of VLM-Guard's open point L_G.
    """
    middle = (min(separation) + max(separation)) / 2
    best = sorted(separation, key=lambda layer: (-separation[layer], abs(layer - middle), layer))
    return tuple(sorted(best[: max(1, len(best) // 3)]))


def separations(harmful: Tensor, harmless: Tensor, rows: Mapping[int, Tensor]) -> dict[int, float]:
    """Layer -> AUROC of the projections on the layer's first row, of states (layers, prompts, d)."""
    return {layer: auroc(harmful[layer] @ own[0], harmless[layer] @ own[0]) for layer, own in rows.items()}


def _states(
    backbone: Backbone, pairs: PromptPairs, *, image: Image.Image | None, batch_size: int
) -> tuple[Tensor, Tensor]:
    """States (layers, pairs, d) of the harmful and of the harmless prompts; raises ValueError unless they are finite."""
    prompts = [*pairs.harmful, *pairs.harmless]
    states = last_states(backbone, prompts, image=image, batch_size=batch_size)
    bad = ~torch.isfinite(states).all(-1)
    if bool(bad.any()):
        layer, prompt = (int(number) for number in bad.nonzero()[0])
        raise ValueError(
            f"layer {layer} has states that are not finite for {int(bad[layer].sum())} of {len(prompts)} prompts, such as "
            f"{shortened(prompts[prompt], 80)}; load the model in float32 or bfloat16, or check its weights"
        )
    harmful, harmless = states.split(len(pairs), dim=1)
    return harmful, harmless


def _check_lengths(backbone: Backbone, pairs: PromptPairs, *, image: Image.Image | None) -> None:
    """Raise ValueError where a prompt, with an image or alone, is longer than the context."""
    lengths = PromptLengths(backbone, safety_tokens=0)
    sizes = [] if image is None else [image.size]
    for prompt in (*pairs.harmful, *pairs.harmless):
        count, _ = lengths(make_chat(prompt, len(sizes)), sizes)
        if count > backbone.context_length:
            raise ValueError(
                f"the prompt {shortened(prompt, 80)} has {count} tokens{' with a blank image' if sizes else ''}, the "
                f"model takes {backbone.context_length}; shorten it, or leave its pair out"
            )
