"""`safevlm assess`."""

from __future__ import annotations

import json as json_module

from safevlm.types import ReadText

from .options import MINI, read_policy, rule_text


def assess(
    images: list[str],
    *,
    model: str = MINI,
    backbone: str | None = None,
    prompt: str | None = None,
    policy: str | None = None,
    read_text: ReadText = "never",
    heatmap: str | None = None,
    json: bool = False,
    device: str = "cpu",
) -> int:
    """Score images: risk in [0, 1], level, category, verdict. Needs no LLM.

    Args:
        images: image files.
        model: name of an embedded model, or folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone; by default the one that the model was trained with.
        prompt: text to assess together with each image.
        policy: YAML file with thresholds and actions.
        read_text: which images are read for writing, whose words are scored as a prompt: never, auto (where the head
            sees writing) or always; needs the extra ocr.
        heatmap: PNG file to write, which shows where the safety head attends; for a single image.
        json: print one JSON object per line instead of a table.
        device: torch device, such as cpu or cuda:0.

    Returns exit code 1 if an image could not be scored.
    """
    from safevlm import terminal
    from safevlm.scorer import RiskScorer
    from safevlm.types import Verdict

    if heatmap is not None and len(images) != 1:
        raise ValueError(f"--heatmap is for a single image, {len(images)} were given; call it once per image")
    scorer = RiskScorer.from_pretrained(
        model, backbone=backbone, device_map=device, policy=read_policy(policy, model), read_text=read_text
    )
    rule = rule_text(policy, scorer.policy, scorer.config)
    prompts = None if prompt is None else [prompt] * len(images)
    found = scorer.assess(images, prompts, heatmap=heatmap is not None)
    if heatmap is not None and found[0].heatmap is not None:
        from safevlm.data import read_image
        from safevlm.report import overlay

        overlay(read_image(images[0]), found[0].heatmap).save(heatmap, format="PNG")
    if json:
        for image, assessment in zip(images, found, strict=True):
            print(json_module.dumps({"image": image, **assessment.to_dict(), "rule": rule}))
    else:
        terminal.show_assessments(images, found, rule=rule)
    return int(any(assessment.verdict is Verdict.UNDECIDED for assessment in found))
