"""Row `guard`: the scorer compared with a generative guard that writes a verdict per image, as LlavaGuard-0.5B does."""

from __future__ import annotations

from safevlm.backbone.bare import generate_bare
from safevlm.backbone.shapes import onevision_bytes, random_onevision

from .generate import PROMPT
from .images import make_images
from .measure import MIN_ROUNDS, WARM_UPS, measure
from .memory import available_memory, weight_bytes
from .names import GENERATIVE, OURS, VERDICTS
from .results import Result
from .setup import Setup

HEADROOM = 1.6
"""Memory required, as a multiple of the weights: 3.6 GB of float32 weights require 5.7 GB."""


def guard(setup: Setup) -> list[Result]:
    """Measure both from the same decoded images, in one batch, to a verdict for each."""
    count, length = setup.amounts.guard_images, setup.amounts.verdict_tokens
    cell = setup.cell(
        "guard",
        VERDICTS,
        batch=count,
        unit="images/s",
        ratio_of="rate",
        against=GENERATIVE,
        note=f"{setup.guard_sizes.source}; {length} tokens per verdict, prompt of 64 words (LlavaGuard's policy is longer)",
    )
    processor = setup.mini.processor
    wanted = HEADROOM * onevision_bytes(setup.guard_sizes, processor=processor, dtype=setup.dtype)
    there = available_memory()
    if setup.device.type == "cpu" and there is not None and there < wanted:
        reason = f"skipped: the generative guard requires {wanted / 1e9:.1f} GB of memory, {there / 1e9:.1f} GB are free"
        return [cell.failed(name, reason) for name in (GENERATIVE, OURS)]
    model, own = random_onevision(
        setup.guard_sizes, processor=processor, device=setup.device, dtype=setup.dtype
    )
    scorer = setup.scorer()
    images = make_images(count)

    def generative() -> None:
        generate_bare(
            model,
            own,
            images,
            [PROMPT] * count,
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=False,
        )

    def ours() -> None:
        scorer.assess(images, batch_size=count)

    slow = setup.device.type == "cpu"  # about a minute a call at the real shape
    timings = measure(
        {GENERATIVE: generative, OURS: ours},
        device=setup.device,
        seconds=setup.seconds,
        min_rounds=1 if slow else MIN_ROUNDS,
        warm_ups=1 if slow else WARM_UPS,
    )
    weights = {GENERATIVE: weight_bytes(model), OURS: weight_bytes(scorer.tower.module, scorer.safety)}
    return cell.results(timings, items=count, weights=weights)
