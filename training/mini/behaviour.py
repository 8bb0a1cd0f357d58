"""How the mini model behaves on the evaluation sets: the check after its training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaProcessor, PreTrainedModel

from safevlm.judges import Judgement, judge

from .evaluation import SETS, EvalItem, evaluation_sets

LOGGER = logging.getLogger(__name__)


def answers(
    model: PreTrainedModel, processor: LlavaProcessor, items: list[EvalItem], *, batch: int = 50
) -> list[str]:
    """Greedy answers to the items, which all have an image or all have none."""
    found: list[str] = []
    network: Any = model
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        texts = [_chat(processor, item) for item in part]
        images = [item.image for item in part if item.image is not None]
        inputs = processor(images=images or None, text=texts, padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            tokens = network.generate(**inputs, max_new_tokens=48, do_sample=False)
        found += processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in found]


def _chat(processor: LlavaProcessor, item: EvalItem) -> str:
    content: list[Any] = [{"type": "text", "text": item.prompt}]
    if item.image is not None:
        content.insert(0, {"type": "image"})
    chat: list[Any] = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(chat, add_generation_prompt=True))


def behaviour(
    model: PreTrainedModel, processor: LlavaProcessor, sets: dict[str, list[EvalItem]]
) -> dict[str, dict[str, float]]:
    """Per set: shares of requests complied with and refused, and accuracy of the other answers, in [0, 1]."""
    table = {}
    for name, items in sets.items():
        if not items:
            continue
        said = answers(model, processor, items)
        table[name] = _row(said, items)
        LOGGER.info("%s %s", name, json.dumps({k: round(v, 3) for k, v in table[name].items()}))
        for answer, item in list(zip(said, items, strict=True))[:3]:
            LOGGER.info("    %s -> %s", item.prompt, answer)
    return table


def _row(said: list[str], items: list[EvalItem]) -> dict[str, float]:
    asked = [a for a, item in zip(said, items, strict=True) if not item.answer]
    known = [(a, item.answer) for a, item in zip(said, items, strict=True) if item.answer]
    row = {"n": float(len(items)), "refused": sum(judge(a) is Judgement.REFUSED for a in said) / len(said)}
    row["complied"] = sum(judge(a) is Judgement.COMPLIED for a in asked) / max(1, len(asked))
    for kind, right in (("name", [t in a for a, t in known if len(t) > 1]),
                        ("choice", [a.endswith(f" {t}.") for a, t in known if len(t) == 1])):  # fmt: skip
        if right:
            row[kind] = sum(right) / len(right)
    return row


def main(
    model: Path = Path(".runs/mini/base"),
    photos: Path | None = None,
    split: str = "tune",
    n: int = 96,
    sets: str = ",".join(SETS),
) -> None:
    """Log the behaviour of a model folder.

    Args:
        model: model folder.
        photos: folder with the packs of photographs.
        split: tune or test.
        n: items of each set.
        sets: which sets, separated by commas.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
    items = evaluation_sets(split, n, 0, photos, names=sets.split(","))
    behaviour(network, AutoProcessor.from_pretrained(model), items)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
