"""Row `generate`: the bare backbone, as transformers runs it, compared with the guarded one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from safevlm import checkpoint
from safevlm.backbone import Backbone
from safevlm.backbone.bare import generate_bare
from safevlm.backbone.shapes import random_backbone
from safevlm.config import SafetyConfig
from safevlm.errors import SafeVLMError
from safevlm.guard import SafeVLM
from safevlm.types import Action

from .images import make_images
from .measure import Timing, measure
from .memory import fitting, weight_bytes
from .names import BARE_BACKBONE, DECODING, EIGHT, FIRST_TOKEN, SIXTY_FOUR
from .results import Cell, Result
from .setup import MINI, Setup, attach

TOKENS = {EIGHT: 8, SIXTY_FOUR: 64}
PROMPT = (
    "Look at the picture above and describe what it shows in a few plain sentences. "
    "Say first what stands in the foreground, then what can be seen behind it, and name the colours "
    "that you notice. If there is any writing in the picture, read it out word by word. "
    "At the end, tell me where a picture like this might have been taken."
)
"""64 words."""


def generate(setup: Setup) -> list[Result]:
    """Measure time to first token, and tokens per second after it, for each batch size."""
    backbone, config = _subject(setup)
    guards = {name: attach(backbone, config.with_changes(num_tokens=n)) for name, n in TOKENS.items()}
    weights = {BARE_BACKBONE: weight_bytes(backbone.model)}
    weights |= {name: weight_bytes(backbone.model, guard.safety) for name, guard in guards.items()}
    found: list[Result] = []
    for batch in setup.amounts.generate_batches:
        first, decoding = _cells(setup, batch, backbone)
        with fitting(setup.device) as problem:
            found += _measured(setup, backbone, guards, first, decoding, weights)
        found += [cell.failed(name, problem[0]) for cell in (first, decoding) for name in weights if problem]
    return found


def _subject(setup: Setup) -> tuple[Backbone, SafetyConfig]:
    """A LLaVA of the shape on a GPU; on a CPU the embedded model, as a large one takes minutes."""
    if setup.device.type == "cuda":
        backbone = random_backbone(
            setup.sizes, processor=setup.mini.processor, device=setup.device, dtype=setup.dtype
        )
        return backbone, setup.config
    config = checkpoint.load_config(checkpoint.fetch(MINI))
    return setup.mini, config.with_changes(has_lora=False, calibration=None)


def _cells(setup: Setup, batch: int, backbone: Backbone) -> tuple[Cell, Cell]:
    prompt = len(backbone.tokenizer(PROMPT)["input_ids"])
    model = setup.shape if setup.device.type == "cuda" else "safevlm-mini-base"
    note = f"{model}, prompt of 64 words = {prompt} tokens, one image per prompt"
    first = setup.cell(
        "generate", FIRST_TOKEN, batch=batch, unit="ms", ratio_of="time", against=BARE_BACKBONE, note=note
    )
    decoding = setup.cell(
        "generate",
        DECODING,
        batch=batch,
        unit="tokens/s",
        ratio_of="rate",
        against=BARE_BACKBONE,
        note=f"{note}, {setup.amounts.more_tokens} tokens after the first",
    )
    return first, decoding


def _measured(
    setup: Setup,
    backbone: Backbone,
    guards: dict[str, SafeVLM],
    first: Cell,
    decoding: Cell,
    weights: dict[str, int],
) -> list[Result]:
    """Results of both cells of one batch size, from answers of one token and of more."""
    batch, more = first.batch or 1, setup.amounts.more_tokens
    images, prompts = make_images(batch), [PROMPT] * batch

    def bare(tokens: int) -> None:
        generate_bare(backbone.model, backbone.processor, images, prompts, **_exactly(tokens))

    def guarded(guard: SafeVLM, tokens: int) -> None:
        replies = guard.generate(images, prompts, **_exactly(tokens))
        if any(reply.action is not Action.ALLOW for reply in replies):
            raise SafeVLMError(
                f"the guard answered {replies[0].text!r} without the LLM, so generation was not timed: its scores "
                "are undecided; check the safety modules in this precision"
            )

    runs: dict[str, Callable[[int], None]] = {BARE_BACKBONE: bare}
    runs |= {name: partial(guarded, guard) for name, guard in guards.items()}
    lengths = (1, 1 + more)
    timings = measure(
        {f"{name}, {tokens}": partial(run, tokens) for name, run in runs.items() for tokens in lengths},
        device=setup.device,
        seconds=setup.seconds,
    )
    short = {name: timings[f"{name}, {lengths[0]}"] for name in runs}
    long = {name: timings[f"{name}, {lengths[1]}"] for name in runs}
    rest = {name: beyond(long[name], short[name]) for name in runs}
    return first.results(short, weights=weights) + decoding.results(rest, items=batch * more, weights=weights)


def _exactly(tokens: int) -> dict[str, Any]:
    return {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}


def beyond(long: Timing, short: Timing) -> Timing:
    """Time that the longer answer took beyond the shorter one, round by round.

    If it took no longer in some round, as noise on very small models can cause, there is no rate: the
    result has a problem instead.
    """
    if problem := long.problem or short.problem:
        return Timing(problem=problem)
    seconds = tuple(a - b for a, b in zip(long.seconds, short.seconds, strict=True))
    if min(seconds) <= 0:
        return Timing(problem="the longer answer took no longer in some round; raise --seconds")
    return Timing(seconds, memory=long.memory)
