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
    """Measure speed against the bare tower and the bare backbone, side by side, with random weights.

    Args:
        rows: what to measure: score, pipeline, generate, head, guard, scan, with commas between.
        shape: vit-l-14-336 (a GPU's default), vit-b-32 (a CPU's), or tiny, which shows that it runs.
        device: cpu or cuda:0 for example; the GPU where there is one.
        dtype: of the backbones; auto is bfloat16 on a GPU, float32 on a CPU.
        seconds: for the rounds of a cell of the table; three rounds are run at least.
        out: Markdown file to write the table to, with machine, versions and date.
        json: print a list of {row, device, value, unit, ratio, against, ...}.

    Exit code 1 where nothing could be measured.
    """
    from safevlm import terminal
    from safevlm.bench import Setup, parse_rows, run, to_json

    names, setup = parse_rows(rows), Setup.choose(shape, device=device, dtype=dtype, seconds=seconds)
    found = run(setup, names, out=out, on_row=None if json else terminal.show_step)
    print(json_module.dumps(to_json(found), indent=2)) if json else terminal.show_bench(found, setup)
    return int(all(result.value is None for result in found))
