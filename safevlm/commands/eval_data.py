"""`safevlm eval data`."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from .options import AUTO, MINI, read_policy, rule_text


def eval_data(
    source: str,
    *,
    model: str = MINI,
    backbone: str | None = None,
    policy: str | None = None,
    threshold: float | None = None,
    split: Literal["train", "tune", "test", "all"] | None = None,
    level: str = "risk_level",
    category: str = "risk_category",
    skip_bad: bool = False,
    batch_size: int = 32,
    device: str = AUTO,
    report: str | None = None,
    json: bool = False,
) -> int:
    """Measure a model on labelled images: AUROC, average precision, recall, false alarms, per category, reliability.

    Args:
        source: labelled images in any form that training reads: folders of classes, a table (.parquet, .jsonl, .json), or a
            report's marks.
        model: name of an embedded model, or folder or hub id of the safety modules.
        backbone: folder or hub id of the backbone; by default the one that the model was trained with.
        policy: YAML file with thresholds and actions.
        threshold: scores from this on are unsafe, in place of the policy's thresholds.
        split: which rows; by default test where the table has test rows, else all.
        level: column of the labels with the risk level.
        category: column of the labels with the risk category.
        skip_bad: leave out bad rows, with a warning, instead of stopping.
        batch_size: number of images per forward pass of the vision tower.
        device: torch device, such as cpu or cuda:0; auto is the GPU if there is one.
        report: HTML file to write, with curves and the images that were judged wrong.
        json: print JSON instead of a table.
    """
    from safevlm import terminal

    with terminal.eval_progress(quiet=json) as advance:
        found, facts = measured(
            Path(source), model, backbone=backbone, policy=policy, threshold=threshold, split=split, level=level,
            category=category, skip_bad=skip_bad, batch_size=batch_size, device=device, on_progress=advance,
        )  # fmt: skip
    if report is not None:
        write_report(found, facts, Path(report))
    if json:
        print(json_module.dumps(facts | found.to_dict(), indent=2))
    else:
        terminal.show_data_evaluation(found, facts, report)
    return 0


def measured(
    source: Path,
    model: str,
    *,
    backbone: str | None = None,
    policy: str | None = None,
    threshold: float | None = None,
    split: Literal["train", "tune", "test", "all"] | None = None,
    level: str = "risk_level",
    category: str = "risk_category",
    skip_bad: bool = False,
    batch_size: int = 32,
    device: str | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Any, dict[str, str]]:
    """The `DataEvaluation` of a model on labelled images, and what it is of: data, model, what is unsafe.

    The arguments are the flags of the same names.
    """
    from safevlm.evals.data import evaluate
    from safevlm.evals.scored import read_images, score_images
    from safevlm.scorer import RiskScorer

    scorer = RiskScorer.from_pretrained(
        model, backbone=backbone, device_map=device, policy=read_policy(policy, model, threshold)
    )
    images = read_images(
        source, scorer.config.taxonomy, split=split, level=level, category=category, skip_bad=skip_bad
    )
    found = evaluate(score_images(images, scorer, batch_size=batch_size, on_progress=on_progress))
    rule = rule_text(policy, scorer.policy, scorer.config, threshold)
    return found, {"data": images.text, "model": model, "unsafe": rule}


def write_report(found: Any, facts: dict[str, str], path: Path) -> None:
    """Write a `DataEvaluation` as a page."""
    from safevlm.evals.page import write_page

    write_page(found, path, {name.capitalize(): value for name, value in facts.items()})
