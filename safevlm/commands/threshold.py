"""`safevlm threshold`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Literal

from .options import AUTO, MINI, read_policy


def threshold(
    source: str,
    *,
    out: str,
    recall: float | None = None,
    false_positives: float | None = None,
    per_category: bool = False,
    model: str = MINI,
    backbone: str | None = None,
    policy: str | None = None,
    split: Literal["train", "tune", "test", "all"] | None = None,
    level: str = "risk_level",
    category: str = "risk_category",
    skip_bad: bool = False,
    batch_size: int = 32,
    device: str = AUTO,
    json: bool = False,
) -> int:
    """Choose thresholds on labelled images, and write a policy that every command takes with --policy.

    Args:
        source: labelled images in any form that training reads: folders of classes, a table (.parquet, .jsonl, .json), or a
            report's marks.
        out: YAML file to write.
        recall: the share of the risky images that must be flagged at least, such as 0.95.
        false_positives: the share of the safe images that may be flagged at most, such as 0.01; instead of --recall.
        per_category: choose a threshold for each category with enough images, and one for the others.
        model: name of an embedded model, or folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone; by default the one that the model was trained with.
        policy: YAML file whose actions, hints and categories that are let through are kept.
        split: which rows; by default tune where the table has tune rows, else all.
        level: column of the labels with the risk level.
        category: column of the labels with the risk category.
        skip_bad: leave out bad rows, with a warning, instead of stopping.
        batch_size: number of images per forward pass of the vision tower.
        device: torch device, such as cpu or cuda:0; auto is the GPU if there is one.
        json: print JSON instead of a table.
    """
    from safevlm import terminal
    from safevlm.evals.scored import read_images, score_images
    from safevlm.evals.thresholds import Target, choose_thresholds
    from safevlm.scorer import RiskScorer

    if recall is not None and false_positives is None:
        target = Target("recall", recall)
    elif false_positives is not None and recall is None:
        target = Target("false_positives", false_positives)
    else:
        raise ValueError("give either --recall, such as 0.95, or --false-positives, such as 0.01")
    scorer = RiskScorer.from_pretrained(
        model, backbone=backbone, device_map=device, policy=read_policy(policy, model)
    )
    taxonomy = scorer.config.taxonomy
    images = read_images(
        Path(source), taxonomy, split=split, prefer="tune", level=level, category=category, skip_bad=skip_bad
    )
    with terminal.eval_progress(quiet=json) as advance:
        scored = score_images(images, scorer, batch_size=batch_size, on_progress=advance)
    found = choose_thresholds(scored, scorer.policy, target, per_category=per_category)
    found.policy.to_yaml(out, comment=f"{found.text}\nmodel: {model}\ndata: {images.text}")
    if json:
        print(json_module.dumps({"model": model, "data": images.text, **found.to_dict()}, indent=2))
    else:
        terminal.show_thresholds(found, Path(out))
    return 0
