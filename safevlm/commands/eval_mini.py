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
    """Evaluate the embedded model with and without its guard, on held-out rendered images.

    Args:
        n: number of items per measurement.
        seed: random seed of the rendered images and of the choice of photographs.
        photos: folder with photos64/ and prompts/; without it the photographs' columns stay empty.
        json: print JSON: {row: {column: {value, low, high, n}}}.
        markdown: print the table of the README, in Markdown.
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
