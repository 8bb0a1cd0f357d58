"""Chats and images -> a backbone's inputs, through its own processor and chat template."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from safevlm.types import IGNORED

from .answers import answer_ids
from .chats import image_parts
from .default_dtype import float32_by_default
from .load_backbone import Backbone
from .placeholders import find_placeholders, placeholder_token
from .tower_pass import TowerPass


@dataclass(frozen=True)
class Inputs:
    """A batch for the backbone's forward or generate.

    Args:
        tensors: what the processor made: `input_ids` and `attention_mask` (B, L), `pixel_values` ...
        token_mask: (B, L) bool, where safety tokens go; None without safety tokens or images.
        images: per prompt, which images of the tower's pass it has.
        labels: (B, L) int64, -100 on prompts and padding; None without answers.
    """

    tensors: dict[str, Tensor]
    token_mask: Tensor | None
    images: tuple[tuple[int, ...], ...]
    labels: Tensor | None = None


def encode(
    backbone: Backbone,
    chats: Sequence[Sequence[Mapping[str, Any]]],
    images: Sequence[Any],
    *,
    safety_tokens: int,
    answers: Sequence[str | Sequence[int]] | None = None,
    passed: TowerPass | None = None,
    rows: Sequence[int] | None = None,
) -> Inputs:
    """Render, tokenize and pad a batch.

    Args:
        chats: one conversation per prompt, image parts included; their text is taken literally.
        images: the RGB images of all prompts, in order; the processor needs their sizes.
        safety_tokens: placeholders to put before each image; 0 for the plain backbone's own inputs.
        answers: what the LLM should say, as text, or as tokens that it generated; given in training, where padding is
            on the right.
        passed: a tower's pass over the images, so that they are not preprocessed again.
        rows: which images of that pass these are; None: all.

    Raises:
        ValueError: a prompt, or a prompt and its answer, longer than the LLM's context; a text that cannot be
            taken literally.
    """
    family, count = backbone.family, safety_tokens if images else 0
    texts = [backbone.renderer(chat).text for chat in chats]
    if count:
        texts = _with_placeholders(backbone, texts, count)
    pixels = None
    if passed is not None and images and family.reads_prepared:
        pixels = passed.pixels if rows is None else passed.pixels[list(rows)]
    values, vision = _process(backbone, texts, _by_prompt(chats, images), pixels)
    _check_lengths(backbone, values["input_ids"], what="images")
    starts = None if answers is None else _append_answers(backbone, chats, answers, values)
    tensors = _pad(values, backbone.tokenizer, right=answers is not None)
    numbers = range(len(images)) if rows is None else rows
    return Inputs(
        {**tensors, **vision},
        _token_mask(backbone, tensors["input_ids"], images=len(images), count=count) if count else None,
        tuple(tuple(own) for own in _by_prompt(chats, numbers)),
        None if starts is None else _labels(tensors, starts),
    )


def _with_placeholders(backbone: Backbone, texts: Sequence[str], count: int) -> list[str]:
    """The prompts with `count` placeholders before each image."""
    opening = backbone.family.opening(backbone.processor)
    fill = placeholder_token(backbone.tokenizer) * count
    return [text.replace(opening, fill + opening) for text in texts]


def _token_mask(backbone: Backbone, input_ids: Tensor, *, images: int, count: int) -> Tensor:
    """(B, L) bool: where the placeholders of `_with_placeholders` stand."""
    tokenizer = backbone.tokenizer
    return find_placeholders(
        input_ids,
        images=images,
        count=count,
        placeholder_id=tokenizer.convert_tokens_to_ids(placeholder_token(tokenizer)),
        opening_id=backbone.family.opening_id(backbone.processor, backbone.model.config),
    )


def _append_answers(
    backbone: Backbone,
    chats: Sequence[Sequence[Mapping[str, Any]]],
    answers: Sequence[str | Sequence[int]],
    values: dict[str, list[list[int]]],
) -> list[int]:
    """Add each answer's tokens to its prompt's in `values`, in place; returns where each answer starts."""
    starts = [len(ids) for ids in values["input_ids"]]
    for row, (chat, answer) in enumerate(zip(chats, answers, strict=True)):
        ids: list[int] = answer_ids(backbone, chat, answer) if isinstance(answer, str) else [*answer]
        kinds = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        for name, column in values.items():
            column[row] += kinds.get(name, [backbone.family.answer_types.get(name, 0)] * len(ids))
    _check_lengths(backbone, values["input_ids"], what="images and its answer")
    return starts


def _by_prompt(chats: Sequence[Sequence[Mapping[str, Any]]], images: Iterable[Any]) -> list[list[Any]]:
    """What there is one of for each image, as lists for each prompt, by its chat's image parts."""
    left = iter(images)
    return [list(islice(left, image_parts(chat))) for chat in chats]


def _process(
    backbone: Backbone, texts: list[str], images: list[list[Any]], pixels: Tensor | None
) -> tuple[dict[str, list[list[int]]], dict[str, Any]]:
    """The processor's own rows of per-token values, unpadded, and its vision tensors."""
    family, tokenizer = backbone.family, backbone.tokenizer
    alone = {
        row: text
        for row, own in enumerate(images)
        if not own and (text := family.text_alone(texts[row], tokenizer)) is not None
    }
    together = [row for row in range(len(texts)) if row not in alone]
    options = {"padding": True, "return_tensors": "pt"}
    found: dict[int, dict[str, list[int]]] = {}
    vision: dict[str, Any] = {}
    if together:
        made = _run_processor(
            backbone, [texts[row] for row in together], [images[row] for row in together], pixels, options
        )
        vision = {name: tensor for name, tensor in made.items() if tensor.shape != made["input_ids"].shape}
        found |= zip(together, _unpadded(made), strict=True)
    if alone:
        made = tokenizer(
            list(alone.values()), add_special_tokens=False, return_token_type_ids=True, **options
        )
        found |= zip(alone, _unpadded(made), strict=True)
    return {name: [found[row][name] for row in range(len(texts))] for name in found[0]}, vision


def _run_processor(
    backbone: Backbone,
    texts: list[str],
    images: list[list[Any]],
    pixels: Tensor | None,
    options: Mapping[str, Any],
) -> Any:
    flat = [image for row in images for image in row]
    given = images if backbone.family.nested_images else flat
    processor = backbone.processor if pixels is None else _standing_in(backbone.processor, pixels)
    with float32_by_default():
        made = processor(
            text=texts,
            images=given if flat else None,
            add_special_tokens=not _has_bos(backbone, texts),
            **options,
        )
    if pixels is not None:
        made["pixel_values"] = pixels
    made.pop("labels", None)
    return made


def _unpadded(made: Mapping[str, Tensor]) -> list[dict[str, list[int]]]:
    """Each row's per-token values."""
    size = made["input_ids"].shape
    return [
        {name: tensor[row][mask].tolist() for name, tensor in made.items() if tensor.shape == size}
        for row, mask in enumerate(made["attention_mask"].bool())
    ]


def _standing_in(processor: Any, pixels: Tensor) -> Any:
    """A copy whose image processor gives zeros of the pixels' shape at once: only sizes are read."""
    zeros = torch.zeros((), dtype=torch.float32).expand(pixels.shape)  # numpy has no bfloat16
    copied = copy.copy(processor)  # other threads preprocess with the original
    copied.image_processor = copy.copy(processor.image_processor)
    copied.image_processor.preprocess = lambda *_, **__: BatchFeature({"pixel_values": zeros})
    return copied


def _has_bos(backbone: Backbone, texts: Sequence[str]) -> bool:
    """Whether the template wrote the begin-of-sequence token, as transformers' own chat path asks."""
    bos = backbone.tokenizer.bos_token
    return bos is not None and texts[0].startswith(bos)


def _check_lengths(backbone: Backbone, rows: Sequence[Sequence[int]], *, what: str) -> None:
    for number, row in enumerate(rows):
        if len(row) > backbone.context_length:
            raise ValueError(
                f"prompt {number} has {len(row)} tokens with its {what}, the model takes "
                f"{backbone.context_length}; shorten it"
            )


def _pad(rows: dict[str, list[list[int]]], tokenizer: Any, *, right: bool) -> dict[str, Tensor]:
    """Pad with the pad id (0 for masks): on the right to train, on the left to generate."""
    length = max(len(row) for row in rows["input_ids"])
    tensors = {}
    for name, values in rows.items():
        fill = (tokenizer.pad_token_id or 0) if name == "input_ids" else 0
        padded = [
            row + [fill] * (length - len(row)) if right else [fill] * (length - len(row)) + row
            for row in values
        ]
        tensors[name] = torch.tensor(padded, dtype=torch.long)
    return tensors


def _labels(tensors: Mapping[str, Tensor], starts: Sequence[int]) -> Tensor:
    labels = tensors["input_ids"].masked_fill(tensors["attention_mask"] == 0, IGNORED)
    for row, start in enumerate(starts):
        labels[row, :start] = IGNORED
    return labels
