"""`safevlm eval mini`."""

from __future__ import annotations

import json as json_module
from typing import Literal

from .options import MINI


def eval_mini(
    *,
    n: int = 500,
    seed: int = 0,
    photos: str | None = None,
    split: Literal["test", "tune"] = "test",
    rows: str = "",
    sets: str = "",
    stage1: str = "safevlm-mini-stage1",
    stage2: str = MINI,
    json: bool = False,
    markdown: bool = False,
) -> int:
    """Evaluate the embedded model with and without its guard, on held-out rendered images.

    Args:
        n: number of items per measurement.
        seed: random seed of the rendered images and of the choice of photographs.
        photos: folder with photos/ and photos_native/; without it the photographs' columns stay empty.
        split: test, or tune for every choice that is made while a recipe is being developed.
        rows: which models, separated by commas: plain, tokens, head_hint, stage1, stage2, stage2_reader; by default all
            (the last only with the extra ocr).
        sets: which sets of items, separated by commas: risky_scenes, risky_photos, risky_native, typographic, text,
            text_blank, ordinary_scenes, ordinary_photos, ordinary_native, lookalike, words; by default all.
        stage1: name or folder of the checkpoint of stage 1.
        stage2: name or folder of the checkpoint of stage 2.
        json: print JSON: {row: {column: {value, low, high, n, things, templates}, per_thing: {set: {thing: counts}}}}.
        markdown: print the table of the README, in Markdown.
    """
    from safevlm import terminal
    from safevlm.demo import evaluate_mini
    from safevlm.evals import to_json, to_markdown

    with terminal.eval_progress(quiet=json or markdown) as advance:
        found = evaluate_mini(
            n=n, seed=seed, photos=photos, split=split, rows=_names(rows), sets=_names(sets), stage1=stage1,
            stage2=stage2, on_progress=advance,
        )  # fmt: skip
    if json:
        print(json_module.dumps(to_json(found), indent=2))
    elif markdown:
        print(to_markdown(found.table))
    else:
        terminal.show_table(found.table)
    return 0


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]
