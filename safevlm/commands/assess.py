"""`safevlm assess`."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from safevlm.types import ReadText, Risk, RiskAssessment

from .options import AUTO, MINI, read_policy, rule_text

BATCH = 32
"""Images that are held at a time."""


def assess(
    images: list[str],
    *,
    model: str = MINI,
    backbone: str | None = None,
    prompt: str | None = None,
    policy: str | None = None,
    threshold: float | None = None,
    read_text: ReadText = "never",
    heatmap: str | None = None,
    json: bool = False,
    device: str = AUTO,
) -> int:
    """Score images: risk in [0, 1], level, category, verdict. Needs no LLM.

    Args:
        images: image files, or folders of them, at any depth.
        model: name of an embedded model, or folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone; by default the one that the model was trained with.
        prompt: text to assess together with each image.
        policy: YAML file with thresholds and actions.
        threshold: scores from this on are unsafe, in place of the policy's thresholds.
        read_text: which images are read for writing, whose words are scored as a prompt: never, auto (where the head
            sees writing) or always; needs the extra ocr.
        heatmap: PNG file to write, which shows where the safety head attends; for a single image.
        json: print one JSON object per line instead of a table.
        device: torch device, such as cpu or cuda:0; auto is the GPU if there is one.

    Returns exit code 1 if an image could not be scored.
    """
    from safevlm import terminal
    from safevlm.scorer import RiskScorer
    from safevlm.types import Verdict

    if heatmap is not None and (len(images) != 1 or Path(images[0]).is_dir()):
        given = "a folder was" if len(images) == 1 else f"{len(images)} were"
        raise ValueError(f"--heatmap is for a single image, {given} given; call it once per image")
    scorer = RiskScorer.from_pretrained(
        model,
        backbone=backbone,
        device_map=device,
        policy=read_policy(policy, model, threshold),
        read_text=read_text,
    )
    rule = rule_text(policy, scorer.policy, scorer.config, threshold)
    names: list[str] = []
    found: list[RiskAssessment] = []
    opened = _opened(images)
    while batch := list(islice(opened, BATCH)):
        assessed = _assessed([image for _, image in batch], scorer, prompt, heatmap=heatmap is not None)
        for (name, _), assessment in zip(batch, assessed, strict=True):
            if json:
                print(json_module.dumps({"image": name, **assessment.to_dict(), "rule": rule}))
            names.append(name)
            found.append(assessment)
    if heatmap is not None and found[0].heatmap is not None:
        from safevlm.data import read_image
        from safevlm.report import overlay

        overlay(read_image(images[0]), found[0].heatmap).save(heatmap, format="PNG")
    if not json:
        terminal.show_assessments(names, found, rule=rule)
    return int(any(assessment.verdict is Verdict.UNDECIDED for assessment in found))


def _opened(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Names and images: files as they are given, and what a folder holds."""
    from safevlm.data import FolderSource

    for path in paths:
        if not Path(path).is_dir():
            yield path, path
            continue
        source = FolderSource(path)
        for shard in source.shards():
            for item in source.read(shard):
                yield os.path.join(path, item.id), item


def _assessed(
    images: Sequence[Any], scorer: Any, prompt: str | None, *, heatmap: bool
) -> list[RiskAssessment]:
    """One assessment per path or item; what cannot be read is undecided, with the reason."""
    from safevlm.data import decode_item
    from safevlm.errors import DataError, ImageError

    readable: list[Any] = []
    reasons: list[str] = []  # of each image; empty where it is readable
    for image in images:
        try:
            readable.append(image if isinstance(image, str) else decode_item(image))
        except (DataError, ImageError) as error:
            reasons.append(str(error))
        else:
            reasons.append("")
    prompts = None if prompt is None else [prompt] * len(readable)
    found = iter(scorer.assess(readable, prompts, heatmap=heatmap) if readable else ())
    return [scorer.policy.assess(Risk(None, reason=reason)) if reason else next(found) for reason in reasons]
