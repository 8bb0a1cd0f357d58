"""`safevlm steer fit`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Literal

from .options import MINI

PLOT = "separation.png"


def steer_fit(
    *,
    pairs: str,
    out: str,
    model: str = MINI,
    axis: Literal["harmful_query", "jailbroken_behaviour"] = "harmful_query",
    rank: int = 4,
    seed: int = 0,
    batch_size: int = 8,
    source: str | None = None,
    split: str | None = None,
    device: str | None = None,
    json: bool = False,
) -> int:
    """Fit a steering direction on pairs of prompts, and show how well each layer separates them.

    Args:
        pairs: JSONL, JSON or CSV file with columns harmful, harmless, or text, harmful, pair_id.
        out: folder for the direction and the plot of separation by layer.
        model: name, folder or hub id of a backbone, or of safety modules, whose backbone is taken without them.
        axis: what the pairs differ in: harmful_query, or jailbroken_behaviour.
        rank: number of rows of each layer.
        seed: random seed of the choice of the pairs that separation is measured on.
        batch_size: prompts in a forward pass.
        source: use rows with this value in the column source.
        split: use rows with this value in the column split.
        device: torch device of the model, such as cpu or cuda:0; cpu by default.
        json: print JSON: {axis, model_type, rank, layers, separation, ..., with_image, pairs, held_out}.
    """
    from safevlm import binding, terminal
    from safevlm.backbone import load_backbone
    from safevlm.files import write_bytes
    from safevlm.labelled import read_pairs
    from safevlm.report import layer_plot
    from safevlm.steering import fit_direction

    given = read_pairs(pairs, source=source, split=split)
    backbone = load_backbone(binding.named_backbone(model), device_map=device)
    fitted = fit_direction(backbone, given, axis=axis, rank=rank, seed=seed, batch_size=batch_size)
    fitted.direction.save(out)
    lines = {"text only": fitted.direction.separation, "text + blank image": fitted.with_image}
    title = f"Separation of {fitted.held_out} held-out pairs"
    write_bytes(
        Path(out) / PLOT, layer_plot(lines, marked=fitted.direction.layers, title=title, unit="AUROC")
    )
    if json:
        measured = {"with_image": dict(fitted.with_image), "pairs": fitted.pairs, "held_out": fitted.held_out}
        print(json_module.dumps({**fitted.direction.to_dict(), **measured}, indent=2))
    else:
        terminal.show_direction(fitted.direction, with_image=fitted.with_image)
        terminal.show_fit(fitted, Path(out), Path(out) / PLOT)
    return 0
