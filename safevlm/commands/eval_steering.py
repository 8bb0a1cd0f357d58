"""`safevlm eval steering`."""

from __future__ import annotations

import json as json_module
from typing import Literal

from .options import MINI


def eval_steering(
    *,
    n: int = 300,
    n_tune: int = 40,
    seed: int = 0,
    prompts: str | None = None,
    split: Literal["test", "tune"] = "test",
    rows: str = "",
    model: str = MINI,
    json: bool = False,
    markdown: bool = False,
) -> int:
    """Compare steering methods on the embedded model: harmful requests, their harmless twins, and the costs.

    Args:
        n: requests of each setting, and as many harmless twins.
        n_tune: the same, of the items that each method's settings are chosen with.
        seed: random seed of all items and anchor pairs.
        prompts: folder with prompts/prompts.jsonl; without it all requests are made up.
        split: test, or tune while a method is being developed.
        rows: which rows, separated by commas: plain, self_reminder, goal_priority, ecso, cmrm_dataset, cmrm_sample, astra,
            mean_difference, projection, vlm_guard, adapter, adapter_vlm_guard; by default all.
        model: name or folder of the safety modules, and of their backbone.
        json: print JSON: {table: {row: {column: {value, low, high, n, ...}}}, chosen: {row: {settings, error}}, fit: {...}}.
        markdown: print the tables of docs/steering.md, in Markdown.
    """
    from safevlm import terminal
    from safevlm.demo import evaluate_steering
    from safevlm.evals import steering_markdown

    with terminal.eval_progress(quiet=json or markdown) as advance:
        found = evaluate_steering(
            n=n, n_tune=n_tune, seed=seed, prompts=prompts, split=split, model=model, on_progress=advance,
            rows=[name.strip() for name in rows.split(",") if name.strip()],
        )  # fmt: skip
    if json:
        print(json_module.dumps(found.to_dict(), indent=2))
    elif markdown:
        print(steering_markdown(found.table))
        for row, chosen in found.chosen.items():
            print(f"- {row}: {chosen.settings}")
    else:
        terminal.show_steering(found)
    return 0
