"""`safevlm eval mini`."""

from __future__ import annotations

import json as json_module


def eval_mini(
    *,
    n: int = 500,
    seed: int = 0,
    photos: str | None = None,
    json: bool = False,
    markdown: bool = False,
) -> int:
    """Measure the embedded model without and with its guard, on held-out data it renders itself.

    Args:
        n: items per cell.
        seed: of the rendered test scenes and of the draw among photographs.
        photos: folder with photos64/ and prompts/; the columns that need photographs are empty without it.
        json: print {row: {column: {value, low, high, n}}}.
        markdown: print the README's table.
    """
    from safevlm import terminal
    from safevlm.demo import evaluate_mini
    from safevlm.evals import to_json, to_markdown

    with terminal.eval_progress(quiet=json or markdown) as advance:
        table = evaluate_mini(n=n, seed=seed, photos=photos, on_progress=advance)
    if json:
        print(json_module.dumps(to_json(table), indent=2))
    elif markdown:
        print(to_markdown(table))
    else:
        terminal.show_table(table)
    return 0
