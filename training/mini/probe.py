"""How much risk can be read linearly from a frozen tower: what a head on it may reach."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from safevlm.backbone import VisionTower, load_tower

from .evaluation import NATIVE, PHOTOS
from .photographs import Photographs, load_photographs

LOGGER = logging.getLogger(__name__)
DECAY = 0.1
"""Weight of half the squared norm beside the mean loss, of standardised features."""


def features(tower: VisionTower, pictures: Photographs, chosen: Sequence[int], *, batch: int = 32) -> Tensor:
    """What the head would read of n pictures, pooled by mean and maximum over places and views: float32 (n, 2 * dim)."""
    found = []
    for start in range(0, len(chosen), batch):
        images = [pictures.image(i) for i in chosen[start : start + batch]]
        views = tower(tower.preprocess(images), for_replay=False).views
        seen: list[list[Tensor]] = [[] for _ in images]
        for owner, (places, _) in zip(views.owners, views, strict=True):
            seen[owner].append(places.float().cpu())
        for parts in seen:
            places = torch.cat(parts)
            found.append(torch.cat([places.mean(0), places.amax(0)]))
    return torch.stack(found)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve of scores float (n,) for bool (n,); ties count half."""
    _, order = torch.unique(scores.double(), return_inverse=True)
    counts = torch.bincount(order)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[order]
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def fit(known: Tensor, risky: Tensor, *, decay: float = DECAY) -> tuple[Tensor, Tensor]:
    """Logistic regression in which both classes weigh alike, by L-BFGS: weights (dim,) and bias ()."""
    weight = torch.zeros(known.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    truth = risky.float()
    balance = torch.where(risky, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(known @ weight + bias, truth, weight=balance)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def probe(known: Tensor, risky: Tensor, held: Tensor, *, decay: float = DECAY) -> Tensor:
    """Logits (m,) of `held` (m, dim) from a linear probe on `known` (n, dim) with bool labels (n,)."""
    mean, std = known.mean(0), known.std(0) + 1e-6
    weight, bias = fit((known - mean) / std, risky, decay=decay)
    return (held - mean) / std @ weight + bias


def main(
    photos: Path, model: Path = Path(".runs/mini/base"), ordinary: int = 9000, decay: float = DECAY
) -> None:
    """Log the AUROC, risky against ordinary, on the tune photographs of each pack.

    Args:
        photos: folder with the packs of photographs.
        model: folder of the model, or of a tower alone.
        ordinary: ordinary training photographs at most, beside all risky ones.
        decay: strength of the regularisation.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tower = load_tower(model)
    train = load_photographs(photos, split="train")
    risky, safe = _by_risk(train)
    chosen = [*risky, *random.Random(0).sample(safe, min(ordinary, len(safe)))]
    known, labels = features(tower, train, chosen), torch.arange(len(chosen)) < len(risky)
    for pack in (PHOTOS, NATIVE):
        tune = load_photographs(photos, split="tune", packs=(pack,))
        risky, safe = _by_risk(tune)
        logits = probe(known, labels, features(tower, tune, [*risky, *safe]), decay=decay)
        area = auroc(logits, torch.arange(len(tune)) < len(risky))
        LOGGER.info("AUROC risky / ordinary, tune of %s (n = %d): %.3f", pack, len(tune), area)


def _by_risk(pictures: Photographs) -> tuple[list[int], list[int]]:
    """Numbers of the risky and of the other pictures."""
    risky = [i for i in range(len(pictures)) if pictures.risky(i)]
    return risky, [i for i in range(len(pictures)) if not pictures.risky(i)]


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
