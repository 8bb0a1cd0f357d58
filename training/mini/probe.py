"""How much risk can be read linearly from the tower: the check of its pre-training."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPVisionModel

from .augment import normalise
from .photographs import Photographs, load_photographs
from .tower_model import hidden_states

LOGGER = logging.getLogger(__name__)


def features(tower: CLIPVisionModel, pixels: np.ndarray, *, batch: int = 128) -> Tensor:
    """Patch features of layer -2, pooled by mean and by maximum: float32 (n, 2 * width)."""
    tower.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(pixels), batch):
            images = normalise(torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch])))
            patches = hidden_states(tower, images)[-2][:, 1:]
            found.append(torch.cat([patches.mean(1), patches.amax(1)], dim=1))
    return torch.cat(found)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve of scores float (n,) for bool (n,); ties count half."""
    order = torch.from_numpy(np.unique(scores.double().numpy(), return_inverse=True)[1])
    counts = torch.bincount(order)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[order]
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def probe(tower: CLIPVisionModel, fit: Photographs, held: Photographs, *, ordinary: int = 6000) -> float:
    """AUROC on `held` of a linear probe fitted on all risky and some ordinary pictures of `fit`."""
    risky = np.array([level != "safe" for level in fit.risk_levels])
    chosen = np.concatenate(
        [np.flatnonzero(risky), np.random.default_rng(0).permutation(np.flatnonzero(~risky))[:ordinary]]
    )
    chosen.sort()
    known, truth = features(tower, fit.pixels[chosen]), torch.from_numpy(risky[chosen]).long()
    mean, std = known.mean(0), known.std(0) + 1e-6
    linear = torch.nn.Linear(known.shape[1], 2)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=3e-3, weight_decay=0.05)
    known = (known - mean) / std
    for _ in range(400):
        loss = cross_entropy(linear(known), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = linear((features(tower, held.pixels) - mean) / std)
    return auroc(logits[:, 1] - logits[:, 0], torch.tensor([level != "safe" for level in held.risk_levels]))


def main(
    photos: Path, tower: Path = Path(".runs/mini/tower"), cache: Path = Path(".runs/mini/cache")
) -> None:
    """Log the AUROC, risky against ordinary, on the tune photographs.

    Args:
        photos: folder that holds `photos64`.
        tower: folder of the tower.
        cache: folder of decoded photographs.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = CLIPVisionModel.from_pretrained(tower)
    fit, held = (load_photographs(photos, split=split, cache=cache) for split in ("train", "tune"))
    LOGGER.info("AUROC risky / ordinary photographs, tune (n = %d): %.3f", len(held), probe(model, fit, held))


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
