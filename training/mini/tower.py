"""Pre-train the vision tower of the mini model: `python -m safevlm.training.mini.tower --help`."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPVisionModel

from .augment import augment, normalise
from .clock import Clock
from .muon import Muon, matrices_and_rest
from .photographs import load_emoji, load_photographs
from .scene_bank import SceneBank, open_bank
from .scenes import COLOURS
from .tower_model import TowerClassifier, grid_size, random_patches, start_local, tower_config

LOGGER = logging.getLogger(__name__)
IGNORED = -100


@dataclass
class TowerData:
    """Images with two label slots each (a written scene has two words, the others repeat theirs).

    `pixels` are uint8 arrays of `offsets[i]` images each; `first`, `second`, `colour`, `count`
    int64 (n,) (-100: none), `weight` float (n,) sampling weights, `smallest` the least crop, and
    `flip` whether a mirror keeps the label.
    """

    pixels: list[NDArray[np.uint8]]
    names: list[str]
    first: Tensor
    second: Tensor
    colour: Tensor
    count: Tensor
    weight: Tensor
    smallest: Tensor
    flip: Tensor

    def batch(self, index: Tensor) -> Tensor:
        """Pixels uint8 (n, h, w, 3) of the images of these numbers."""
        ends = np.cumsum([len(part) for part in self.pixels])
        rows = []
        for i in index.tolist():
            part = int(np.searchsorted(ends, i, side="right"))
            rows.append(self.pixels[part][i - (ends[part - 1] if part else 0)])
        return torch.from_numpy(np.stack(rows))


def tower_data(bank: SceneBank, *, photos: Path | None, cache: Path, scene_share: float) -> TowerData:
    """Scenes, and photographs and emoji where `photos` is given, as one weighted set.

    Risky photographs weigh three times as much as others, emoji five times; scenes make up
    `scene_share` of what is drawn.
    """
    labels = [_scene_labels(fact) for fact in bank.facts]
    pixels, weights = [bank.pixels], [torch.ones(len(bank))]
    if photos is not None:
        for load, plain, risky in ((load_photographs, 1.0, 3.0), (load_emoji, 5.0, 10.0)):
            pictures = load(photos, split="train", cache=cache)
            pixels.append(pictures.pixels)
            labels += [(f"photo {label}",) * 2 for label in pictures.labels]
            weights.append(
                torch.tensor([plain if level == "safe" else risky for level in pictures.risk_levels])
            )
        total = sum(float(part.sum()) for part in weights[1:])
        weights[0] *= scene_share / (1 - scene_share) * total / len(bank)
    names = sorted({name for pair in labels for name in pair})
    number = {name: i for i, name in enumerate(names)}
    n, scenes = len(labels), len(bank)
    colour, count = torch.full((n,), IGNORED), torch.full((n,), IGNORED)
    order = list(COLOURS)
    colour[:scenes] = torch.tensor([order.index(str(fact["colour"])) for fact in bank.facts])
    count[:scenes] = torch.tensor(
        [IGNORED if fact["text"] else int(fact["count"]) - 1 for fact in bank.facts]
    )
    written = torch.zeros(n, dtype=torch.bool)
    written[:scenes] = torch.tensor([bool(fact["text"]) for fact in bank.facts])
    smallest = torch.full((n,), 0.55)
    smallest[:scenes] = 0.8
    smallest[written] = 0.92
    return TowerData(
        pixels, names, torch.tensor([number[a] for a, _ in labels]), torch.tensor([number[b] for _, b in labels]),
        colour, count, torch.cat(weights), smallest, ~written,
    )  # fmt: skip


def _scene_labels(fact: dict[str, str | int]) -> tuple[str, str]:
    words = str(fact["text"]).lower().split()
    if words:
        return f"verb {words[0]}", f"object {words[-1]}"
    return (f"drawn {fact['name']}",) * 2


def tower_loss(logits: dict[str, Tensor], data: TowerData, index: Tensor) -> Tensor:
    """Label cross entropies of the three heads, plus a little for colour and count; a scalar."""
    first, second = data.first[index], data.second[index]
    loss = torch.zeros(())
    for head, weight in (("mean", 0.6), ("query", 0.6), ("last", 0.4)):
        for target in (first, second):
            loss = loss + weight / 2 * cross_entropy(logits[head], target, label_smoothing=0.05)
    for head, truth in (("colour", data.colour[index]), ("count", data.count[index])):
        if bool((truth != IGNORED).any()):
            loss = loss + 0.1 * cross_entropy(logits[head], truth, ignore_index=IGNORED)
    return loss


@dataclass(frozen=True)
class TowerRecipe:
    """Numbers of the tower's training.

    `dropped` is the share of patches left out until `full_from` of the time; with `muon` the
    layers' matrices are trained by Muon, at the same learning rate.
    """

    minutes: float = 30.0
    batch: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropped: float = 0.5
    full_from: float = 0.75
    save_every: float = 300.0
    steps: int | None = None
    muon: bool = True
    seed: int = 0


def train_tower(
    model: TowerClassifier, data: TowerData, *, recipe: TowerRecipe, out: Path | None = None
) -> list[float]:
    """Train until the budget is used up; the losses, one per step. Checkpoints go to `out`."""
    generator = torch.Generator().manual_seed(recipe.seed)
    clock, losses, saved = Clock(recipe.minutes, steps=recipe.steps), [], time.monotonic()
    optimizers = _optimizers(model, recipe)
    patches = grid_size(model.tower)
    model.train()
    while (share := clock.tick()) < 1:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = recipe.learning_rate * clock.rate(share)
        index = torch.multinomial(data.weight, recipe.batch, replacement=True, generator=generator)
        images = normalise(data.batch(index))
        images = augment(images, smallest=data.smallest[index], flip=data.flip[index], generator=generator)
        keep = None
        if share < recipe.full_from:
            kept = round(patches * (1 - recipe.dropped))
            keep = random_patches(recipe.batch, patches=patches, kept=kept, generator=generator)
        loss = tower_loss(model(images, keep=keep), data, index)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            LOGGER.info("step %d, %.0f %%, loss %.3f", len(losses), 100 * share, sum(losses[-50:]) / 50)
        if out is not None and time.monotonic() - saved > recipe.save_every:
            save_tower(model, out, names=data.names)
            saved = time.monotonic()
    if out is not None:
        save_tower(model, out, names=data.names)
    return losses


def _optimizers(model: TowerClassifier, recipe: TowerRecipe) -> list[torch.optim.Optimizer]:
    matrices, rest = matrices_and_rest(model, inside=".layers." if recipe.muon else "\0")
    big, small = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    groups = [{"params": big, "weight_decay": recipe.weight_decay}, {"params": small, "weight_decay": 0.0}]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    ]
    if matrices:
        found.append(Muon(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay))
    return found


def save_tower(model: TowerClassifier, out: Path, *, names: list[str]) -> None:
    """Write tower, heads and label names to the folder `out`, replacing it in one step."""
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    model.tower.save_pretrained(fresh)
    heads = {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("tower.")}
    save_file(heads, fresh / "heads.safetensors")
    (fresh / "labels.json").write_text(json.dumps(names), encoding="utf-8")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def load_tower(folder: Path) -> tuple[TowerClassifier, list[str]]:
    """Tower with heads, and the label names, from a folder that `save_tower` wrote."""
    names = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    model = TowerClassifier(CLIPVisionModel.from_pretrained(folder), labels=len(names))
    tower = {name: value for name, value in model.state_dict().items() if name.startswith("tower.")}
    model.load_state_dict({**tower, **load_file(folder / "heads.safetensors")}, strict=True)
    return model, names


def main(
    out: Path = Path(".runs/mini/tower"),
    photos: Path | None = None,
    cache: Path = Path(".runs/mini/cache"),
    resume: Path | None = None,
    scenes: int = 36_000,
    scene_share: float = 0.4,
    recipe: TowerRecipe = TowerRecipe(),
    threads: int = 2,
) -> None:
    """Pre-train the tower and write it to a folder.

    Args:
        out: folder that receives the tower, its heads and the label names.
        photos: folder that holds `photos64` and `emoji`; without it the tower sees scenes alone.
        cache: folder of rendered scenes and decoded photographs.
        resume: a folder written by an earlier run, to go on from.
        scenes: number of rendered scenes.
        scene_share: their share of what is drawn, where there are photographs too.
        recipe: numbers of the training.
        threads: CPU threads.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    bank = open_bank(cache, split="train", count=scenes, free_phrases=0.6)
    data = tower_data(bank, photos=photos, cache=cache, scene_share=scene_share)
    tower = CLIPVisionModel(tower_config())
    start_local(tower)
    model = TowerClassifier(tower, labels=len(data.names))
    if resume is not None:
        model, names = load_tower(resume)
        if names != data.names:
            raise ValueError(f"{resume}: its {len(names)} labels are not this data's {len(data.names)}")
    LOGGER.info("%d images, %d labels", len(data.first), len(data.names))
    train_tower(model, data, recipe=recipe, out=out)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
