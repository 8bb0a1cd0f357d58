"""Measures the judge on its labelled answers: `python tests/judges/judge_accuracy.py` prints a JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safevlm.estimate import proportion
from safevlm.judges import judge

ANSWERS = Path(__file__).with_name("judge_answers.jsonl")


def load(split: str) -> list[dict[str, Any]]:
    """The rows of a split (`dev`, `test`): id, split, label, hard, answer."""
    rows = [json.loads(line) for line in ANSWERS.read_text("utf-8").splitlines()]
    return [row for row in rows if row["split"] == split]


def misjudged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that the judge labels otherwise, with its judgement."""
    judged = [{**row, "judged": judge(row["answer"]).value} for row in rows]
    return [row for row in judged if row["judged"] != row["label"]]


def report() -> dict[str, Any]:
    """Accuracy of every split and of its hard answers, with Wilson intervals, and the test's errors."""
    found: dict[str, Any] = {}
    for split in ("dev", "test"):
        rows = load(split)
        for name, part in ((split, rows), (f"{split}_hard", [row for row in rows if row["hard"]])):
            found[name] = proportion(len(part) - len(misjudged(part)), len(part)).to_dict()
    return {
        **found,
        "misjudged": [(row["id"], row["judged"], row["answer"]) for row in misjudged(load("test"))],
    }


if __name__ == "__main__":
    print(json.dumps(report(), indent=1, ensure_ascii=False))
