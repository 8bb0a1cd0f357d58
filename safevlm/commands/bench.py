"""`safevlm bench`."""

from __future__ import annotations

import json as json_module
from typing import Literal


def bench(
    rows: str = "score,pipeline,generate,head,guard,scan",
    *,
    shape: str | None = None,
    device: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    seconds: float = 5.0,
    out: str | None = None,
    json: bool = False,
) -> int:
    """Compare speed with the bare tower and the bare backbone, on random weights.

    Args:
        rows: what to measure, separated by commas: score, pipeline, generate, head, guard, scan.
        shape: vit-l-14-336 (default on a GPU), vit-b-32 (default on a CPU), mini (the embedded
            model's), or tiny, for a quick check.
        device: torch device, such as cpu or cuda:0; by default the GPU if there is one.
        dtype: dtype of the backbones; auto is bfloat16 on a GPU and float32 on a CPU.
        seconds: time for the rounds of one measurement; at least three rounds are run.
        out: Markdown file for the table, with machine, versions and date.
        json: print a JSON list of {row, device, value, unit, ratio, against, ...}.

    Returns exit code 1 if nothing could be measured.
    """
    from safevlm import terminal
    from safevlm.bench import Setup, parse_rows, run, to_json

    names, setup = parse_rows(rows), Setup.choose(shape, device=device, dtype=dtype, seconds=seconds)
    found = run(setup, names, out=out, on_row=None if json else terminal.show_step)
    print(json_module.dumps(to_json(found), indent=2)) if json else terminal.show_bench(found, setup)
    return int(all(result.value is None for result in found))
